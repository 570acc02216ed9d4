//! Quantises a row of activations, 32 columns at a time.

use super::super::activations::{Block, TINY, each_block};
use super::super::format::BLOCK;
use std::arch::x86_64::*;

/// # Safety
/// As the portable version, with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn quantize(x: &[f32], out: *mut Block, step: usize) {
    // SAFETY: the caller's.
    each_block(x, |i, x| unsafe { out.add(i * step).write(block(x)) });
}

#[target_feature(enable = "avx2,fma,f16c")]
fn block(x: &[f32; BLOCK]) -> Block {
    // SAFETY: four vectors of eight in 32 floats.
    let x: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) });
    let largest = f32::from_bits(largest_bits(x));
    if !largest.is_finite() {
        return Block::POISON;
    }
    if largest < TINY {
        return Block::ZERO;
    }
    let (d, inverse) = (largest / 127.0, _mm256_set1_ps(127.0 / largest));
    let q = x.map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
    let high = sum(_mm256_add_epi32(q[2], q[3]));
    let total = high + sum(_mm256_add_epi32(q[0], q[1]));
    let mut block =
        Block { d, ds: d * total as f32, neg_sum: -total, neg_high: -high, ..Block::ZERO };
    // Packing works within halves of vectors: the permutation puts runs of four back in order.
    let words = [_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])];
    let bytes = _mm256_packs_epi16(words[0], words[1]);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = _mm256_permutevar8x32_epi32(bytes, order);
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(block.q.as_mut_ptr().cast(), bytes) };
    block
}

/// The largest magnitude, as bits: infinity and then NaN order above every number.
#[target_feature(enable = "avx2")]
fn largest_bits(x: [__m256; 4]) -> u32 {
    let sign = _mm256_set1_epi32(i32::MAX);
    let [a, b, c, d] = x.map(|x| _mm256_and_si256(_mm256_castps_si256(x), sign));
    let max = _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d));
    let max = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b10_11_00_01>(max));
    _mm_cvtsi128_si32(max).cast_unsigned()
}

#[target_feature(enable = "avx2")]
fn sum(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
}
