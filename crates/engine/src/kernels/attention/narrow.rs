//! From floats to integers and a factor.
//!
//! Keys and values have a factor a token and head, so that a token is written once and never again,
//! whatever comes after it in its block. Queries and weights have one a row, as small as sums of
//! products in 32 bits allow: sums are exact, in any order, and that by bound, not by luck.

use super::SECTION;
use crate::kernels::level::versions;
use crate::kernels::norm::in_pairs;

/// Independent sums and maxima; all lengths are multiples of it.
const LANES: usize = 16;

/// Adding it to a number below 2²² leaves the nearest integer in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0;

/// What is smaller than this is nothing: its inverse might not be finite.
const NOTHING: f32 = 1e-30;

/// The greatest integer on the left of a product; one less than there is, for the rounding.
const GREATEST_LEFT: f32 = 32_766.0;

/// How much the integers of a section may add up to on the left where those on the right are at most
/// `greatest_right`. Each may be rounded up by a half.
pub(crate) const fn total_left(greatest_right: i16) -> f32 {
    (i32::MAX / greatest_right as i32 - SECTION as i32) as f32
}

versions! {
    /// `to[i] = from[i] / factor`, to the nearest integer, the greatest of them `greatest`. Where one
    /// is no number, the factor is none either: a poisoned row must show.
    pub(crate) fn narrow(from: &[f32], greatest: i16, to: &mut [i16], factor: &mut f32) = right
}

versions! {
    /// The same for the left side of products, by sections that add up to `total` at most.
    pub(crate) fn narrow_left(from: &[f32], total: f32, to: &mut [i16], factor: &mut f32) = left
}

#[inline(always)]
fn right(from: &[f32], greatest: i16, to: &mut [i16], factor: &mut f32) {
    let mut most = [0; LANES];
    from.as_chunks().0.iter().for_each(|part| raise(&mut most, part));
    let most = greatest_of(most);
    *factor = most / f32::from(greatest);
    let inverse = if most > NOTHING { f32::from(greatest) / most } else { 0.0 };
    round(from, inverse, to);
}

#[inline(always)]
fn left(from: &[f32], total: f32, to: &mut [i16], factor: &mut f32) {
    *factor = factor_left(from, total);
    round(from, inverse(*factor), to);
}

#[inline(always)]
pub(super) fn factor_left(from: &[f32], total: f32) -> f32 {
    let (mut most, mut greatest_sum) = ([0; LANES], 0.0);
    for section in from.chunks(SECTION) {
        let mut sums = [0.0; LANES];
        for part in section.as_chunks().0 {
            raise(&mut most, part);
            part.iter().zip(&mut sums).for_each(|(x, sum)| *sum += x.abs());
        }
        let sum = in_pairs(sums);
        greatest_sum = if sum > greatest_sum { sum } else { greatest_sum };
    }
    let (by_sum, by_greatest) = (greatest_sum / total, greatest_of(most) / GREATEST_LEFT);
    if by_sum > by_greatest { by_sum } else { by_greatest }
}

#[inline(always)]
pub(super) fn inverse(factor: f32) -> f32 {
    if factor > NOTHING { 1.0 / factor } else { 0.0 }
}

/// Maxima of magnitudes, by their bits, among which what is no number is the greatest.
#[inline(always)]
fn raise(most: &mut [u32; LANES], part: &[f32; LANES]) {
    part.iter().zip(most).for_each(|(x, most)| *most = x.abs().to_bits().max(*most));
}

#[inline(always)]
fn greatest_of(mut most: [u32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            most[lane] = most[lane].max(most[lane + half]);
        }
        half /= 2;
    }
    f32::from_bits(most[0])
}

#[inline(always)]
pub(super) fn round(from: &[f32], inverse: f32, to: &mut [i16]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = (from * inverse + ROUND).to_bits() as i16;
    }
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
