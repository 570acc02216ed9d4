//! Float weights by float activations: one fused multiply-add a column, in ascending order.

use super::super::format::STRIP;
use super::super::job::FloatJob;
use std::arch::x86_64::*;

/// A float type's way from memory to single precision.
pub(super) trait Element {
    const SIZE: usize;
    /// # Safety
    /// AVX-512 F; 16 elements at `at`.
    unsafe fn load(at: *const u8) -> __m512;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Element for F32 {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(at.cast()) }
    }
}

impl Element for F16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
}

impl Element for BF16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
}

/// # Safety
/// As [`super::super::job::FloatKernel`], with AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn kernel<E: Element, const T: usize>(job: &FloatJob) {
    let mut acc = [_mm512_setzero_ps(); T];
    // SAFETY: the job's strip has 16 elements a column, its rows one float.
    unsafe {
        for column in 0..job.cols {
            let w = E::load(job.w.add(column * STRIP * E::SIZE));
            for (t, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*job.x.add(t * job.step + column));
                *acc = _mm512_fmadd_ps(w, x, *acc);
            }
        }
        let live = ((1u32 << job.out.live) - 1) as __mmask16;
        for (t, acc) in acc.into_iter().enumerate() {
            _mm512_mask_storeu_ps(job.out.at.add(t * job.out.stride), live, acc);
        }
    }
}
