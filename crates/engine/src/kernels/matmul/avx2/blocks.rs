//! Block-quantised weights: 16 rows of weights by `T` rows of activations.
//!
//! Products of bytes are summed in 16-bit lanes for as many groups as their bound allows, then
//! widened. Bounds, with |q| ≤ 127 and two products a lane and group:
//! 4 bits 8·2·15·127 = 30,480; 5 bits 4·2·31·127 = 31,496; 6 bits 2·2·63·127 = 32,004;
//! 8 bits, magnitude by sign-adjusted activation, 1·2·128·127 = 32,512: all below 32,768.

use super::super::activations::Block;
use super::super::ahead::{STREAMING, ask};
use super::super::format::{Format, STRIP};
use super::super::job::BlockJob;
use super::codes::{codes, min, scale};
use std::arch::x86_64::*;

/// Two vectors for each row of activations: the strip's lower and upper 8 rows.
type Pairs<V, const T: usize> = [[V; 2]; T];

/// # Safety
/// As [`super::super::job::BlockKernel`], with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn kernel<F: Format, const T: usize>(job: &BlockJob) {
    let mut acc: Pairs<__m256, T> = [[_mm256_setzero_ps(); 2]; T];
    let (mut chunk, mut x) = (job.w, job.x);
    // SAFETY: the job's strip has the chunks that its blocks need, and its rows the records.
    unsafe {
        for _ in 0..job.blocks / F::BLOCKS {
            for index in 0..F::BLOCKS {
                let small = chunk.add(F::HEAD + index * F::BLOCK_BYTES);
                if T <= STREAMING {
                    ask(small);
                }
                block::<F, T>(&mut acc, chunk, small, x);
                x = x.wrapping_add(job.step);
            }
            chunk = chunk.add(F::CHUNK);
        }
        for (t, [lower, upper]) in acc.iter().enumerate() {
            let mut lanes = [0f32; STRIP];
            _mm256_storeu_ps(lanes.as_mut_ptr(), *lower);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), *upper);
            job.out.put(t, &lanes);
        }
    }
}

#[inline(always)]
unsafe fn block<F: Format, const T: usize>(
    acc: &mut Pairs<__m256, T>,
    head: *const u8,
    small: *const u8,
    x: *const Block,
) {
    // SAFETY: the caller's.
    unsafe {
        let packed = small.add(F::SMALL);
        for step in 0..F::STEPS {
            let dots = match (F::STEPS, step) {
                (1, _) => {
                    let lower = quad::<F, T, 0>(packed, x);
                    sum(lower, quad::<F, T, 4>(packed, x))
                }
                (_, 0) => quad::<F, T, 0>(packed, x),
                _ => quad::<F, T, 4>(packed, x),
            };
            let scales = [scale::<F>(head, small, step, 0), scale::<F>(head, small, step, 1)];
            for (t, (acc, dots)) in acc.iter_mut().zip(dots).enumerate() {
                let x = &*x.add(t);
                let offset = offset::<F>(x, step);
                for h in 0..2 {
                    let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[h], offset));
                    let scale = _mm256_mul_ps(scales[h], _mm256_set1_ps(x.d));
                    acc[h] = _mm256_fmadd_ps(dot, scale, acc[h]);
                }
            }
        }
        if F::HAS_MIN {
            let mins = [min::<F>(head, small, 0), min::<F>(head, small, 1)];
            for (t, acc) in acc.iter_mut().enumerate() {
                let ds = _mm256_set1_ps((*x.add(t)).ds);
                for h in 0..2 {
                    acc[h] = _mm256_fmadd_ps(mins[h], ds, acc[h]);
                }
            }
        }
    }
}

/// What takes the codes' offset out of a dot product.
#[inline(always)]
unsafe fn offset<F: Format>(x: &Block, step: usize) -> __m256i {
    let neg_sum = match (F::STEPS, step) {
        (1, _) => x.neg_sum,
        (_, 0) => x.neg_sum - x.neg_high,
        _ => x.neg_high,
    };
    // SAFETY: AVX2 by the caller.
    unsafe {
        // Codes of 8 bits are read as signed.
        if F::OFFSET == 0 || F::BITS == 8 {
            return _mm256_setzero_si256();
        }
        _mm256_set1_epi32(neg_sum << F::OFFSET)
    }
}

/// Dot products of groups `G` to `G + 3`.
#[inline(always)]
unsafe fn quad<F: Format, const T: usize, const G: usize>(
    packed: *const u8,
    x: *const Block,
) -> Pairs<__m256i, T> {
    // SAFETY: the caller's.
    unsafe {
        let mut narrow = [[_mm256_setzero_si256(); 2]; T];
        let mut wide = narrow;
        let q = x.cast::<u8>();
        for g in 0..4 {
            let c = match G + g {
                0 => both::<F, 0>(packed),
                1 => both::<F, 1>(packed),
                2 => both::<F, 2>(packed),
                3 => both::<F, 3>(packed),
                4 => both::<F, 4>(packed),
                5 => both::<F, 5>(packed),
                6 => both::<F, 6>(packed),
                _ => both::<F, 7>(packed),
            };
            for (t, narrow) in narrow.iter_mut().enumerate() {
                let q = q.add(t * size_of::<Block>() + (G + g) * 4).cast::<i32>();
                let q = _mm256_set1_epi32(q.read_unaligned());
                for (narrow, c) in narrow.iter_mut().zip(c) {
                    let products = if F::BITS == 8 {
                        _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(q, c))
                    } else {
                        _mm256_maddubs_epi16(c, q)
                    };
                    *narrow = _mm256_add_epi16(*narrow, products);
                }
            }
            let full = match F::BITS {
                8 => true,
                6 => g % 2 == 1,
                _ => g == 3,
            };
            if full {
                widen(&mut narrow, &mut wide);
            }
        }
        wide
    }
}

/// Adds 16-bit sums to 32-bit ones, and starts them anew.
#[inline(always)]
unsafe fn widen<const T: usize>(narrow: &mut Pairs<__m256i, T>, wide: &mut Pairs<__m256i, T>) {
    for (narrow, wide) in narrow.as_flattened_mut().iter_mut().zip(wide.as_flattened_mut()) {
        // SAFETY: AVX2 by the caller.
        unsafe {
            let sum = _mm256_madd_epi16(*narrow, _mm256_set1_epi16(1));
            *wide = _mm256_add_epi32(*wide, sum);
            *narrow = _mm256_setzero_si256();
        }
    }
}

#[inline(always)]
unsafe fn both<F: Format, const G: usize>(packed: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's.
    unsafe { [codes::<F, G, 0>(packed), codes::<F, G, 1>(packed)] }
}

#[inline(always)]
unsafe fn sum<const T: usize>(a: Pairs<__m256i, T>, b: Pairs<__m256i, T>) -> Pairs<__m256i, T> {
    let mut sum = a;
    for t in 0..T {
        for h in 0..2 {
            // SAFETY: AVX2 by the caller.
            sum[t][h] = unsafe { _mm256_add_epi32(a[t][h], b[t][h]) };
        }
    }
    sum
}
