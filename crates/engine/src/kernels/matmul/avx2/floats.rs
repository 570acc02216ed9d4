//! Float weights by float activations: one fused multiply-add a column, in ascending order.

use super::super::format::STRIP;
use super::super::job::FloatJob;
use std::arch::x86_64::*;

/// A float type's way from memory to single precision.
pub(super) trait Element {
    const SIZE: usize;
    /// # Safety
    /// AVX2 and F16C; 8 elements at `at`.
    unsafe fn load(at: *const u8) -> __m256;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Element for F32 {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }
}

impl Element for F16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
}

impl Element for BF16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
}

/// # Safety
/// As [`super::super::job::FloatKernel`], with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn kernel<E: Element, const T: usize>(job: &FloatJob) {
    let mut acc = [[_mm256_setzero_ps(); 2]; T];
    // SAFETY: the job's strip has 16 elements a column, its rows one float.
    unsafe {
        for column in 0..job.cols {
            let w = job.w.add(column * STRIP * E::SIZE);
            let w = [E::load(w), E::load(w.add(8 * E::SIZE))];
            for (t, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*job.x.add(t * job.step + column));
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = _mm256_fmadd_ps(w, x, *acc);
                }
            }
        }
        for (t, [lower, upper]) in acc.iter().enumerate() {
            let mut lanes = [0f32; STRIP];
            _mm256_storeu_ps(lanes.as_mut_ptr(), *lower);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), *upper);
            job.out.put(t, &lanes);
        }
    }
}
