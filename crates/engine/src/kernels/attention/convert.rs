//! Halves to floats, many at a time.

use crate::kernels::level::Level;
use half::f16;

/// `out[i] = halves[i]`, exactly; both of one length, a multiple of 8.
pub(super) fn widen(level: Level, halves: &[f16], out: &mut [f32]) {
    assert!(halves.len() == out.len() && out.len().is_multiple_of(8));
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level is proof of the instructions; the lengths are checked.
        Level::Avx2 | Level::Avx512 => unsafe { f16c(halves, out) },
        Level::Portable => out.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_f32()),
    }
}

/// # Safety
/// The machine has F16C; the lengths are equal multiples of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
unsafe fn f16c(halves: &[f16], out: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    for i in (0..out.len()).step_by(8) {
        // SAFETY: eight elements from `i` on exist in both.
        unsafe {
            let wide = _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().add(i).cast()));
            _mm256_storeu_ps(out.as_mut_ptr().add(i), wide);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_widened_exactly() {
        let halves: Vec<f16> =
            (0..=u16::MAX).map(f16::from_bits).filter(|half| !half.is_nan()).collect();
        let halves = &halves[..halves.len() / 8 * 8];
        for level in Level::all() {
            let mut out = vec![0.0; halves.len()];
            widen(level, halves, &mut out);
            for (half, out) in halves.iter().zip(&out) {
                assert_eq!(half.to_f32().to_bits(), out.to_bits(), "{level:?} {half}");
            }
        }
    }
}
