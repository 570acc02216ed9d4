//! From floats to integers and a factor.
//!
//! Keys and values have a factor a token and head, so that a token is written once and never again,
//! whatever comes after it in its block. Queries and weights have one a row, as small as sums of
//! products in 32 bits allow: sums are exact, in any order, and that by bound, not by luck.

use super::SECTION;
use crate::kernels::wide::{LANES, ROUND, Wide, wide_versions};

/// What is smaller than this is nothing: its inverse might not be finite.
const NOTHING: f32 = 1e-30;

/// The greatest integer on the left of a product; one less than there is, for the rounding.
const GREATEST_LEFT: f32 = 32_766.0;

/// How much the integers of a section may add up to on the left where those on the right are at most
/// `greatest_right`. Each may be rounded up by a half.
pub(crate) const fn total_left(greatest_right: i16) -> f32 {
    (i32::MAX / greatest_right as i32 - SECTION as i32) as f32
}

wide_versions! {
    /// `to[i] = from[i] / factor`, to the nearest integer, the greatest of them `greatest`. Where one
    /// is no number, the factor is none either: a poisoned row must show.
    pub(crate) fn narrow(from: &[f32], greatest: i16, to: &mut [i16], factor: &mut f32) = right
}

wide_versions! {
    /// The same for the left side of products, by sections that add up to `total` at most.
    pub(crate) fn narrow_left(from: &[f32], total: f32, to: &mut [i16], factor: &mut f32) = left
}

#[inline(always)]
unsafe fn right<W: Wide>(from: &[f32], greatest: i16, to: &mut [i16], factor: &mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut most = W::all(0.0);
        for part in parts(from) {
            most = most.greater_bits(W::load(part).abs());
        }
        let most = most.greatest_bits();
        *factor = most / f32::from(greatest);
        let inverse = if most > NOTHING { f32::from(greatest) / most } else { 0.0 };
        round_all::<W>(from, inverse, to);
    }
}

#[inline(always)]
unsafe fn left<W: Wide>(from: &[f32], total: f32, to: &mut [i16], factor: &mut f32) {
    *factor = 0.0;
    // SAFETY: the caller's promise.
    unsafe {
        for section in parts(from).chunks(SECTION / LANES) {
            let mut loaded = [W::all(0.0); SECTION / LANES];
            loaded.iter_mut().zip(section).for_each(|(to, part)| *to = W::load(part));
            let of_section = factor_of_section(&loaded, total);
            // By their bits, so that what is no number stays.
            *factor = f32::from_bits(factor.to_bits().max(of_section.to_bits()));
        }
        round_all::<W>(from, inverse(*factor), to);
    }
}

/// The factor on the left of a section alone.
///
/// # Safety
/// As [`Wide`].
#[inline(always)]
pub(super) unsafe fn factor_of_section<W: Wide>(parts: &[W; SECTION / LANES], total: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut most, mut sum) = (W::all(0.0), W::all(0.0));
        for part in parts {
            let part = part.abs();
            most = most.greater_bits(part);
            sum = sum.add(part);
        }
        let (by_sum, by_greatest) = (sum.sum() / total, most.greatest_bits() / GREATEST_LEFT);
        if by_sum > by_greatest { by_sum } else { by_greatest }
    }
}

#[inline(always)]
pub(super) fn inverse(factor: f32) -> f32 {
    if factor > NOTHING { 1.0 / factor } else { 0.0 }
}

/// The nearest integers in the low bits.
///
/// # Safety
/// As [`Wide`].
#[inline(always)]
pub(super) unsafe fn round<W: Wide>(x: W, inverse: W) -> W {
    // SAFETY: the caller's promise.
    unsafe { x.mul(inverse).add(W::all(ROUND)) }
}

#[inline(always)]
unsafe fn round_all<W: Wide>(from: &[f32], inverse: f32, to: &mut [i16]) {
    for (part, to) in parts(from).iter().zip(to.as_chunks_mut().0) {
        // SAFETY: the caller's promise.
        unsafe { round(W::load(part), W::all(inverse)).store_words(to) };
    }
}

/// All lengths are multiples of a vector's.
#[inline(always)]
fn parts(from: &[f32]) -> &[[f32; LANES]] {
    let (parts, rest) = from.as_chunks();
    debug_assert!(rest.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 211) as f32 - 105.0) * 0.013).collect()
    }

    #[test]
    fn every_level_rounds_to_the_same_nearest_integers() {
        for greatest in [127, 16_383] {
            for from in [numbers(80), numbers(256), vec![0.0; 16], vec![f32::MIN_POSITIVE; 16]] {
                let mut seen: Option<(Vec<i16>, f32)> = None;
                for level in Level::all() {
                    let (mut to, mut factor) = (vec![99; from.len()], f32::NAN);
                    narrow(level, &from, greatest, &mut to, &mut factor);
                    for (&number, &x) in to.iter().zip(&from) {
                        assert!(number.abs() <= greatest);
                        let error = (f32::from(number) * factor - x).abs();
                        assert!(
                            error <= factor * 0.502 + NOTHING,
                            "{number} times {factor} for {x}"
                        );
                    }
                    let got = (to, factor);
                    assert_eq!(seen.get_or_insert_with(|| got.clone()), &got, "{level:?}");
                }
            }
        }
    }

    #[test]
    fn no_sum_of_products_passes_32_bits() {
        let mut alone = vec![0.0; 64];
        alone[5] = -3.0;
        for greatest in [127i16, 16_383] {
            for from in [vec![1.0; 64], vec![-0.7; 256], alone.clone(), numbers(80), numbers(256)] {
                let mut seen: Option<(Vec<i16>, f32)> = None;
                for level in Level::all() {
                    let (mut to, mut factor) = (vec![99; from.len()], f32::NAN);
                    narrow_left(level, &from, total_left(greatest), &mut to, &mut factor);
                    for section in to.chunks(SECTION) {
                        let sum: i64 = section.iter().map(|&x| i64::from(x).abs()).sum();
                        assert!(sum * i64::from(greatest) <= i64::from(i32::MAX));
                    }
                    for (&number, &x) in to.iter().zip(&from) {
                        let error = (f32::from(number) * factor - x).abs();
                        assert!(error <= factor * 0.502, "{number} times {factor} for {x}");
                    }
                    let got = (to, factor);
                    assert_eq!(seen.get_or_insert_with(|| got.clone()), &got, "{level:?}");
                }
            }
        }
        // Nothing is given away either: one bit less would do for none of these.
        let mut factor = 0.0;
        narrow_left(Level::Portable, &[1.0; 64], total_left(16_383), &mut [0; 64], &mut factor);
        assert!(factor < 1.0 / 2_000.0);
        narrow_left(Level::Portable, &alone, total_left(16_383), &mut [0; 64], &mut factor);
        assert!(factor < 3.0 / 32_000.0);
    }

    #[test]
    fn what_is_no_number_shows() {
        for level in Level::all() {
            for poison in [f32::NAN, f32::INFINITY] {
                let mut from = numbers(64);
                from[9] = poison;
                let (mut right, mut left) = (0.0, 0.0);
                narrow(level, &from, 127, &mut [0; 64], &mut right);
                narrow_left(level, &from, 1e5, &mut [0; 64], &mut left);
                assert!(!right.is_finite() && !left.is_finite(), "{level:?}: {right} {left}");
            }
        }
    }
}
