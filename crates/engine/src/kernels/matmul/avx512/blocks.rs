//! Block-quantised weights: 16 rows of weights by `T` rows of activations.
//!
//! `vpdpbusd` adds four products of a code and an activation to each row's 32-bit lane, exactly; the
//! sums start at what takes the codes' offset out again.

use super::super::activations::Block;
use super::super::ahead::{STREAMING, ask};
use super::super::format::Format;
use super::super::job::BlockJob;
use super::codes::{codes, min, scale};
use std::arch::x86_64::*;

/// # Safety
/// As [`super::super::job::BlockKernel`], with AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn kernel<F: Format, const T: usize>(job: &BlockJob) {
    let mut acc = [_mm512_setzero_ps(); T];
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
        let live = ((1u32 << job.out.live) - 1) as __mmask16;
        for (t, acc) in acc.into_iter().enumerate() {
            _mm512_mask_storeu_ps(job.out.at.add(t * job.out.stride), live, acc);
        }
    }
}

#[inline(always)]
unsafe fn block<F: Format, const T: usize>(
    acc: &mut [__m512; T],
    head: *const u8,
    small: *const u8,
    x: *const Block,
) {
    // SAFETY: the caller's.
    unsafe {
        let packed = small.add(F::SMALL);
        if F::STEPS == 1 {
            let mut dots = start::<F, T>(|t| (*x.add(t)).neg_sum);
            quad::<F, T, 0, 1, 2, 3>(&mut dots, packed, x);
            quad::<F, T, 4, 5, 6, 7>(&mut dots, packed, x);
            add(acc, dots, scale::<F>(head, small, 0), x);
        } else {
            let mut dots = start::<F, T>(|t| (*x.add(t)).neg_sum - (*x.add(t)).neg_high);
            quad::<F, T, 0, 1, 2, 3>(&mut dots, packed, x);
            add(acc, dots, scale::<F>(head, small, 0), x);
            let mut dots = start::<F, T>(|t| (*x.add(t)).neg_high);
            quad::<F, T, 4, 5, 6, 7>(&mut dots, packed, x);
            add(acc, dots, scale::<F>(head, small, 1), x);
        }
        if F::HAS_MIN {
            let min = min::<F>(head, small);
            for (t, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_fmadd_ps(min, _mm512_set1_ps((*x.add(t)).ds), *acc);
            }
        }
    }
}

/// Sums that start at what the codes' offset will add too much.
#[inline(always)]
unsafe fn start<F: Format, const T: usize>(neg_sum: impl Fn(usize) -> i32) -> [__m512i; T] {
    // SAFETY: AVX-512 F by the caller.
    std::array::from_fn(|t| unsafe {
        if F::OFFSET == 0 {
            _mm512_setzero_si512()
        } else {
            _mm512_set1_epi32(neg_sum(t) << F::OFFSET)
        }
    })
}

#[inline(always)]
unsafe fn quad<
    F: Format,
    const T: usize,
    const A: usize,
    const B: usize,
    const C: usize,
    const D: usize,
>(
    dots: &mut [__m512i; T],
    packed: *const u8,
    x: *const Block,
) {
    // SAFETY: the caller's.
    unsafe {
        group::<T, A>(dots, codes::<F, A>(packed), x);
        group::<T, B>(dots, codes::<F, B>(packed), x);
        group::<T, C>(dots, codes::<F, C>(packed), x);
        group::<T, D>(dots, codes::<F, D>(packed), x);
    }
}

/// Adds group `G`: four columns of all rows.
#[inline(always)]
unsafe fn group<const T: usize, const G: usize>(
    dots: &mut [__m512i; T],
    codes: __m512i,
    x: *const Block,
) {
    for (t, dot) in dots.iter_mut().enumerate() {
        // SAFETY: row `t`'s record; four of its 32 bytes.
        unsafe {
            let q = x.add(t).cast::<i32>().add(G).read();
            *dot = _mm512_dpbusd_epi32(*dot, codes, _mm512_set1_epi32(q));
        }
    }
}

#[inline(always)]
unsafe fn add<const T: usize>(
    acc: &mut [__m512; T],
    dots: [__m512i; T],
    scale: __m512,
    x: *const Block,
) {
    for t in 0..T {
        // SAFETY: row `t`'s record; AVX-512 F by the caller.
        unsafe {
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps((*x.add(t)).d));
            acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), scale, acc[t]);
        }
    }
}
