//! Sixteen floats of AVX-512, or twice eight of AVX2.

#![allow(clippy::wildcard_imports, reason = "intrinsics, whose names say where they are from")]

use super::{LANES, Wide};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2]);

/// The sum of eight lanes, halves added until one is left.
#[inline(always)]
unsafe fn sum(x: __m256) -> f32 {
    // SAFETY: AVX2 by the caller.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

#[inline(always)]
unsafe fn greatest(x: __m256) -> f32 {
    // SAFETY: as above.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
    }
}

#[inline(always)]
unsafe fn greatest_bits(x: __m256i) -> f32 {
    // SAFETY: as above.
    unsafe {
        let x = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
        _mm_cvtss_f32(_mm_castsi128_ps(x))
    }
}

#[inline(always)]
unsafe fn halves(x: __m512) -> [__m256; 2] {
    // SAFETY: AVX-512 F by the caller.
    unsafe {
        let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
        [_mm512_castps512_ps256(x), _mm256_castpd_ps(upper)]
    }
}

// SAFETY of all of these: the caller has the instructions; arrays are as long as what is read of or
// written to them.
impl Wide for Avx512 {
    #[inline(always)]
    unsafe fn all(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_loadu_ps(from.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn greater(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_abs_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn greater_bits(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_max_epu32(_mm512_castps_si512(self.0), _mm512_castps_si512(other.0));
            Self(_mm512_castsi512_ps(bits))
        }
    }

    #[inline(always)]
    unsafe fn keep(self, lanes: u16, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mask_mov_ps(other.0, lanes, self.0)) }
    }

    #[inline(always)]
    unsafe fn raise(self, by: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let by = _mm512_slli_epi32::<23>(_mm512_castps_si512(by.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), by)))
        }
    }

    #[inline(always)]
    unsafe fn store_words(self, to: &mut [i16; LANES]) {
        // SAFETY: see above.
        unsafe {
            let words = _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), words)
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let [lower, upper] = halves(self.0);
            sum(_mm256_add_ps(lower, upper))
        }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let [lower, upper] = halves(self.0);
            greatest(_mm256_max_ps(lower, upper))
        }
    }

    #[inline(always)]
    unsafe fn greatest_bits(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let [lower, upper] = halves(self.0).map(|x| _mm256_castps_si256(x));
            greatest_bits(_mm256_max_epu32(lower, upper))
        }
    }
}

// SAFETY of all of these: the caller has the instructions; arrays are as long as what is read of or
// written to them.
impl Wide for Avx2 {
    #[inline(always)]
    unsafe fn all(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self([_mm256_set1_ps(x); 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self([0, 8].map(|i| _mm256_loadu_ps(from.as_ptr().add(i)))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.0[1])
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self([_mm256_add_ps(self.0[0], other.0[0]), _mm256_add_ps(self.0[1], other.0[1])])
        }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self([_mm256_sub_ps(self.0[0], other.0[0]), _mm256_sub_ps(self.0[1], other.0[1])])
        }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self([_mm256_mul_ps(self.0[0], other.0[0]), _mm256_mul_ps(self.0[1], other.0[1])])
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |i: usize| _mm256_fmadd_ps(self.0[i], factor.0[i], other.0[i]);
            Self([half(0), half(1)])
        }
    }

    #[inline(always)]
    unsafe fn greater(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self([_mm256_max_ps(self.0[0], other.0[0]), _mm256_max_ps(self.0[1], other.0[1])])
        }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(self.0.map(|x| _mm256_andnot_ps(_mm256_set1_ps(-0.0), x))) }
    }

    #[inline(always)]
    unsafe fn greater_bits(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let [a, b] = [self, other].map(|x| x.0.map(|x| _mm256_castps_si256(x)));
            let half = |i: usize| _mm256_castsi256_ps(_mm256_max_epu32(a[i], b[i]));
            Self([half(0), half(1)])
        }
    }

    #[inline(always)]
    unsafe fn keep(self, lanes: u16, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let half = |i: usize| {
                let lanes = _mm256_set1_epi32(i32::from(lanes >> (8 * i)));
                let kept = _mm256_cmpeq_epi32(_mm256_and_si256(lanes, bits), bits);
                _mm256_blendv_ps(other.0[i], self.0[i], _mm256_castsi256_ps(kept))
            };
            Self([half(0), half(1)])
        }
    }

    #[inline(always)]
    unsafe fn raise(self, by: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |i: usize| {
                let by = _mm256_slli_epi32::<23>(_mm256_castps_si256(by.0[i]));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0[i]), by))
            };
            Self([half(0), half(1)])
        }
    }

    #[inline(always)]
    unsafe fn store_words(self, to: &mut [i16; LANES]) {
        // SAFETY: see above.
        unsafe {
            // Packing saturates: what is above the low bits is made their sign before.
            let [a, b] = self
                .0
                .map(|x| _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(_mm256_castps_si256(x))));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), words)
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { sum(_mm256_add_ps(self.0[0], self.0[1])) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe { greatest(_mm256_max_ps(self.0[0], self.0[1])) }
    }

    #[inline(always)]
    unsafe fn greatest_bits(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let [lower, upper] = self.0.map(|x| _mm256_castps_si256(x));
            greatest_bits(_mm256_max_epu32(lower, upper))
        }
    }
}
