//! Sixteen floats at once, as instruction sets have them.
//!
//! What works on each element by itself is left to the compiler (`level`). What goes across lanes, sums
//! and maxima of a row, it takes apart into pieces that cost more than the row: such kernels are written
//! over [`Wide`]. All sets give the same bits: an operation is rounded once, and sums across lanes are
//! taken in halves.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Floats in a [`Wide`].
pub(crate) const LANES: usize = 16;

/// Adding it to a number below 2²² leaves the nearest integer in the low bits of the mantissa.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Sixteen floats.
///
/// # Safety of its functions
/// The machine has the instructions.
pub(crate) trait Wide: Copy {
    unsafe fn all(x: f32) -> Self;
    unsafe fn load(from: &[f32; LANES]) -> Self;
    unsafe fn store(self, to: &mut [f32; LANES]);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + other`, rounded once.
    unsafe fn mul_add(self, factor: Self, other: Self) -> Self;
    /// Where `self > other`, `self`, else `other`.
    unsafe fn greater(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// The greater of two magnitudes by their bits, among which what is no number is the greatest.
    unsafe fn greater_bits(self, other: Self) -> Self;
    /// The lanes whose bits are set; `other` elsewhere.
    unsafe fn keep(self, lanes: u16, other: Self) -> Self;
    /// `self · 2ⁿ` where the low bits of `by` are the integer n.
    unsafe fn raise(self, by: Self) -> Self;
    /// The low 16 bits of each lane.
    unsafe fn store_words(self, to: &mut [i16; LANES]);
    /// The sum of all lanes, halves added until one is left.
    unsafe fn sum(self) -> f32;
    /// The greatest lane; none is NaN.
    unsafe fn greatest(self) -> f32;
    /// As [`greater_bits`](Self::greater_bits), of all lanes.
    unsafe fn greatest_bits(self) -> f32;
}

/// Defines a function that runs a body generic over [`Wide`] in the version of a level.
macro_rules! wide_versions {
    ($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $crate::kernels::level::by_level! { $(#[$meta])* $name($($arg: $ty),*) {
            // SAFETY: the features of the function that this is in.
            avx2: unsafe { $body::<$crate::kernels::wide::Avx2>($($arg),*) },
            // SAFETY: as above.
            avx512: unsafe { $body::<$crate::kernels::wide::Avx512>($($arg),*) },
            // SAFETY: every machine has what this takes.
            portable: unsafe { $body::<$crate::kernels::wide::Portable>($($arg),*) },
        } }
    };
}
pub(crate) use wide_versions;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    wide_versions! {
        /// Every operation on `x` and `y`, one result after the other.
        pub(crate) fn everything(x: &[f32; LANES], y: &[f32; LANES], out: &mut Vec<u32>) = every
    }

    #[inline(always)]
    unsafe fn every<W: Wide>(x: &[f32; LANES], y: &[f32; LANES], out: &mut Vec<u32>) {
        // SAFETY: the caller has the instructions.
        unsafe {
            let (a, b) = (W::load(x), W::load(y));
            let halves = W::all(0.5);
            let wide = [
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.mul_add(b, halves),
                a.greater(b),
                a.abs(),
                a.abs().greater_bits(b.abs()),
                a.keep(0b0110_0001_1000_0101, b),
                a.keep(0, b),
                a.raise(W::all(ROUND + 3.0)),
                a.raise(W::all(ROUND - 2.0)),
            ];
            for wide in wide {
                let mut lanes = [0.0; LANES];
                wide.store(&mut lanes);
                out.extend(lanes.map(f32::to_bits));
            }
            let mut words = [0; LANES];
            a.mul(W::all(1000.0)).add(W::all(ROUND)).store_words(&mut words);
            out.extend(words.map(|word| i32::from(word).cast_unsigned()));
            let narrow = [a.sum(), a.greatest(), a.abs().greatest_bits()];
            out.extend(narrow.map(f32::to_bits));
        }
    }

    fn in_halves(mut x: [f32; LANES]) -> f32 {
        for half in [8, 4, 2, 1] {
            (0..half).for_each(|lane| x[lane] += x[lane + half]);
        }
        x[0]
    }

    #[test]
    fn every_level_computes_the_same_bits() {
        let x: [f32; LANES] = std::array::from_fn(|i| (i * 7919 % 211) as f32 * 0.13 - 12.7);
        let y: [f32; LANES] = std::array::from_fn(|i| (i * 104_729 % 223) as f32 * 0.11 - 11.3);
        let mut want = Vec::new();
        everything(Level::Portable, &x, &y, &mut want);
        let narrow = &want[want.len() - 3..];
        assert_eq!(narrow[0], in_halves(x).to_bits());
        assert_eq!(f32::from_bits(narrow[1]), x.into_iter().fold(f32::MIN, f32::max));
        let magnitude = x.into_iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        assert_eq!(f32::from_bits(narrow[2]), magnitude);
        for level in Level::all() {
            let mut got = Vec::new();
            everything(level, &x, &y, &mut got);
            assert_eq!(got, want, "{level:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_the_greatest_by_its_bits_and_never_greater() {
        for place in 0..LANES {
            let mut x = [1.0; LANES];
            x[place] = f32::NAN;
            for level in Level::all() {
                let mut got = Vec::new();
                everything(level, &x, &[2.0; LANES], &mut got);
                assert!(f32::from_bits(got[got.len() - 1]).is_nan(), "{level:?}");
                assert_eq!(f32::from_bits(got[4 * LANES + place]), 2.0, "{level:?}");
            }
        }
    }
}
