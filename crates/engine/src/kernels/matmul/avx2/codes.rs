//! Decoders: from packed bytes to vectors of codes, scales and minimums of 8 rows.

use super::super::format::{Format, GROUP, STRIP, Scales};
use std::arch::x86_64::*;

/// The codes of group `G` of half `H` of a strip; signed for 8-bit types, else unsigned.
///
/// # Safety
/// AVX2; `codes` are those of a block.
#[inline(always)]
pub(super) unsafe fn codes<F: Format, const G: usize, const H: usize>(codes: *const u8) -> __m256i {
    // SAFETY: the vectors are inside the block, whose size `Format` derives from the same numbers.
    unsafe {
        let load =
            |vector: usize| _mm256_loadu_si256(codes.add(vector * GROUP + H * GROUP / 2).cast());
        if F::BITS == 8 {
            return _mm256_xor_si256(load(G), _mm256_set1_epi8(i8::MIN));
        }
        let pair = load(G / 2);
        let low = if G.is_multiple_of(2) { pair } else { _mm256_srli_epi16::<4>(pair) };
        let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
        match F::BITS {
            5 => {
                let bit = _mm256_and_si256(fifth::<G>(load(4)), _mm256_set1_epi8(0x10));
                _mm256_or_si256(low, bit)
            }
            6 => {
                let bits = fifth_and_sixth::<G>(load(4 + G / 4));
                _mm256_or_si256(low, _mm256_and_si256(bits, _mm256_set1_epi8(0x30)))
            }
            _ => low,
        }
    }
}

/// Moves bit `G` of each byte to bit 4; the other bits are to be masked away.
#[inline(always)]
unsafe fn fifth<const G: usize>(high: __m256i) -> __m256i {
    // SAFETY: AVX2 by the caller.
    unsafe {
        match G {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<3>(high),
            2 => _mm256_slli_epi16::<2>(high),
            3 => _mm256_slli_epi16::<1>(high),
            4 => high,
            5 => _mm256_srli_epi16::<1>(high),
            6 => _mm256_srli_epi16::<2>(high),
            _ => _mm256_srli_epi16::<3>(high),
        }
    }
}

/// Moves the two bits of group `G` of each byte to bits 4 and 5; the others are to be masked away.
#[inline(always)]
unsafe fn fifth_and_sixth<const G: usize>(high: __m256i) -> __m256i {
    // SAFETY: AVX2 by the caller.
    unsafe {
        match G % 4 {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<2>(high),
            2 => high,
            _ => _mm256_srli_epi16::<2>(high),
        }
    }
}

/// Scales of half `h`'s rows; `step` is 1 for the upper half of a block that has two.
///
/// # Safety
/// AVX2 and F16C; `head` and `small` are those of a block.
#[inline(always)]
pub(super) unsafe fn scale<F: Format>(
    head: *const u8,
    small: *const u8,
    step: usize,
    h: usize,
) -> __m256 {
    // SAFETY: as for `codes`.
    unsafe {
        let d = halves(head, h);
        match F::SCALES {
            Scales::Plain | Scales::Affine => d,
            Scales::Nested => _mm256_mul_ps(d, bytes(small, h)),
            Scales::Nested16 => {
                let s = _mm_loadl_epi64(small.add(step * STRIP + h * 8).cast());
                _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s)))
            }
        }
    }
}

/// What each element of half `h`'s rows has added.
///
/// # Safety
/// As for [`scale`]; only for formats that have minimums.
#[inline(always)]
pub(super) unsafe fn min<F: Format>(head: *const u8, small: *const u8, h: usize) -> __m256 {
    // SAFETY: as for `codes`.
    unsafe {
        let m = halves(head.add(2 * STRIP), h);
        if F::SCALES == Scales::Affine {
            return m;
        }
        let m = _mm256_mul_ps(m, bytes(small.add(STRIP), h));
        _mm256_xor_ps(m, _mm256_set1_ps(-0.0))
    }
}

#[inline(always)]
unsafe fn halves(at: *const u8, h: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.add(h * 16).cast())) }
}

#[inline(always)]
unsafe fn bytes(at: *const u8, h: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.add(h * 8).cast()))) }
}
