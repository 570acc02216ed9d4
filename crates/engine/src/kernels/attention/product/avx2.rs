//! AVX2 and FMA: eight lanes, sixteen registers.

use super::Product;
use super::lanes::{Element, Lanes, Pair};
use super::strip;
use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps,
};

#[derive(Clone, Copy)]
struct Eight(__m256i);

impl Lanes for Eight {
    const WIDTH: usize = 8;
    type Pairs = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn repeat(at: *const Pair<i16>) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_words(at: *const Pair<i16>) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_bytes(at: *const Pair<i8>) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: __m256i, b: __m256i) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_add_epi32(self.0, _mm256_madd_epi16(a, b)) })
    }

    #[inline(always)]
    unsafe fn store(self, factor: f32, keep: Option<f32>, c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let before = match keep {
                Some(keep) => _mm256_mul_ps(_mm256_loadu_ps(c), _mm256_set1_ps(keep)),
                None => _mm256_setzero_ps(),
            };
            let sums = _mm256_cvtepi32_ps(self.0);
            _mm256_storeu_ps(c, _mm256_fmadd_ps(_mm256_set1_ps(factor), sums, before));
        }
    }
}

/// # Safety
/// The matrices are as long as the product says, and the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply<E: Element>(product: &Product<'_, E>, c: *mut f32, c_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { strip::multiply::<E, Eight, 2, 4, 2>(product, c, c_stride) };
}
