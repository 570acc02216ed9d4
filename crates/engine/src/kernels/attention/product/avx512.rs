//! AVX-512 with VNNI: sixteen lanes, thirty-two registers.

use super::Product;
use super::lanes::{Element, Lanes, Pair};
use super::strip;
use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_cvtepi8_epi16, _mm512_cvtepi32_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

#[derive(Clone, Copy)]
struct Sixteen(__m512i);

impl Lanes for Sixteen {
    const WIDTH: usize = 16;
    type Pairs = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn repeat(at: *const Pair<i16>) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_words(at: *const Pair<i16>) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_bytes(at: *const Pair<i8>) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast())) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: __m512i, b: __m512i) -> Self {
        // SAFETY: the caller has AVX-512 VNNI.
        Self(unsafe { add_word_products(self.0, a, b) })
    }

    #[inline(always)]
    unsafe fn store(self, factor: f32, keep: Option<f32>, c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let before = match keep {
                Some(keep) => _mm512_mul_ps(_mm512_loadu_ps(c), _mm512_set1_ps(keep)),
                None => _mm512_setzero_ps(),
            };
            let sums = _mm512_cvtepi32_ps(self.0);
            _mm512_storeu_ps(c, _mm512_fmadd_ps(_mm512_set1_ps(factor), sums, before));
        }
    }
}

/// `vpdpwssd`. Not `_mm512_dpwssd_epi32`: LLVM takes some of those apart into a product and a sum, whose
/// latency is shorter, where what counts is how many there are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) fn add_word_products(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction exists, and touches three registers.
    unsafe {
        asm!(
            "vpdpwssd {sums}, {a}, {b}",
            sums = inout(zmm_reg) sums,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// # Safety
/// The matrices are as long as the product says, and the machine has AVX-512F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn multiply<E: Element>(product: &Product<'_, E>, c: *mut f32, c_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { strip::multiply::<E, Sixteen, 4, 4, 1>(product, c, c_stride) };
}
