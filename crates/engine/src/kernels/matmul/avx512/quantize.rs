//! Quantises a row of activations, 32 columns at a time.

use super::super::activations::{Block, TINY, each_block};
use super::super::format::BLOCK;
use crate::kernels::wide::{Avx512, LANES, Wide};
use std::arch::x86_64::*;

/// # Safety
/// As the portable version, with AVX-512 F, BW and VL.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
pub(in super::super) unsafe fn quantize(x: &[f32], out: *mut Block, step: usize) {
    // SAFETY: the caller's.
    each_block(x, |i, x| unsafe { block(x, out.add(i * step)) });
}

/// # Safety
/// `out` must be writable for a record.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
unsafe fn block(x: &[f32; BLOCK], out: *mut Block) {
    let halves = x.as_chunks::<LANES>().0;
    // SAFETY: the caller's; two vectors of sixteen are the block.
    unsafe {
        let [a, b] = [Avx512::load(&halves[0]).abs(), Avx512::load(&halves[1]).abs()];
        let largest = a.greater_bits(b).greatest_bits();
        if !(TINY..f32::INFINITY).contains(&largest) {
            out.write(if largest < TINY { Block::ZERO } else { Block::POISON });
            return;
        }
        let (d, inverse) = (largest / 127.0, _mm512_set1_ps(127.0 / largest));
        let [first, second] = [&halves[0], &halves[1]].map(|half| {
            let x = _mm512_loadu_ps(half.as_ptr());
            _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)))
        });
        let (low, high) = (sum(first), sum(second));
        let q = _mm256_set_m128i(second, first);
        let block = &mut *out;
        _mm256_storeu_si256(block.q.as_mut_ptr().cast(), q);
        block.d = d;
        block.ds = d * (low + high) as f32;
        block.neg_sum = -(low + high);
        block.neg_high = -high;
    }
}

/// The sum of sixteen signed bytes.
#[target_feature(enable = "avx2")]
fn sum(bytes: __m128i) -> i32 {
    // Made unsigned, for the one instruction that sums bytes.
    let unsigned = _mm_xor_si128(bytes, _mm_set1_epi8(i8::MIN));
    let sums = _mm_sad_epu8(unsigned, _mm_setzero_si128());
    let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
    _mm_cvtsi128_si32(sums) - 16 * 128
}
