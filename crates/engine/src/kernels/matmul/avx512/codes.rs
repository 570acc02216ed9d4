//! Decoders: from packed bytes to vectors of codes, scales and minimums of 16 rows.

use super::super::format::{Format, GROUP, STRIP, Scales};
use std::arch::x86_64::*;

/// The unsigned codes of group `G`.
///
/// # Safety
/// AVX-512 F and BW; `codes` are those of a block.
#[inline(always)]
pub(super) unsafe fn codes<F: Format, const G: usize>(codes: *const u8) -> __m512i {
    // SAFETY: the vectors are inside the block, whose size `Format` derives from the same numbers.
    unsafe {
        let load = |vector: usize| _mm512_loadu_si512(codes.add(vector * GROUP).cast());
        if F::BITS == 8 {
            return load(G);
        }
        let pair = load(G / 2);
        let low = if G.is_multiple_of(2) { pair } else { _mm512_srli_epi16::<4>(pair) };
        let nibble = _mm512_set1_epi8(15);
        match F::BITS {
            5 => select(nibble, low, fifth::<G>(load(4))),
            6 => {
                let low = _mm512_and_si512(low, nibble);
                let bits = fifth_and_sixth::<G>(load(4 + G / 4));
                or_and(low, bits, _mm512_set1_epi8(0x30))
            }
            _ => _mm512_and_si512(low, nibble),
        }
    }
}

/// The low nibble of `low`, and bit 4 of `high` above it.
#[inline(always)]
unsafe fn select(nibble: __m512i, low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: AVX-512 F by the caller.
    unsafe { or_and(_mm512_and_si512(low, nibble), high, _mm512_set1_epi8(0x10)) }
}

/// `a | (b & c)` in one instruction.
#[inline(always)]
unsafe fn or_and(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    // SAFETY: AVX-512 F by the caller.
    unsafe { _mm512_ternarylogic_epi32::<0b1111_1000>(a, b, c) }
}

/// Moves bit `G` of each byte to bit 4; the other bits are to be masked away.
#[inline(always)]
unsafe fn fifth<const G: usize>(high: __m512i) -> __m512i {
    // SAFETY: AVX-512 BW by the caller.
    unsafe {
        match G {
            0 => _mm512_slli_epi16::<4>(high),
            1 => _mm512_slli_epi16::<3>(high),
            2 => _mm512_slli_epi16::<2>(high),
            3 => _mm512_slli_epi16::<1>(high),
            4 => high,
            5 => _mm512_srli_epi16::<1>(high),
            6 => _mm512_srli_epi16::<2>(high),
            _ => _mm512_srli_epi16::<3>(high),
        }
    }
}

/// Moves the two bits of group `G` of each byte to bits 4 and 5; the others are to be masked away.
#[inline(always)]
unsafe fn fifth_and_sixth<const G: usize>(high: __m512i) -> __m512i {
    // SAFETY: AVX-512 BW by the caller.
    unsafe {
        match G % 4 {
            0 => _mm512_slli_epi16::<4>(high),
            1 => _mm512_slli_epi16::<2>(high),
            2 => high,
            _ => _mm512_srli_epi16::<2>(high),
        }
    }
}

/// Scales of the rows; `step` is 1 for the upper half of a block that has two.
///
/// # Safety
/// AVX-512 F; `head` and `small` are those of a block.
#[inline(always)]
pub(super) unsafe fn scale<F: Format>(head: *const u8, small: *const u8, step: usize) -> __m512 {
    // SAFETY: as for `codes`.
    unsafe {
        let d = halves(head);
        match F::SCALES {
            Scales::Plain | Scales::Affine => d,
            Scales::Nested => _mm512_mul_ps(d, bytes(small)),
            Scales::Nested16 => {
                let s = _mm512_cvtepi8_epi32(_mm_loadu_si128(small.add(step * STRIP).cast()));
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(s))
            }
        }
    }
}

/// What each element of the rows has added.
///
/// # Safety
/// As for [`scale`]; only for formats that have minimums.
#[inline(always)]
pub(super) unsafe fn min<F: Format>(head: *const u8, small: *const u8) -> __m512 {
    // SAFETY: as for `codes`.
    unsafe {
        let m = halves(head.add(2 * STRIP));
        if F::SCALES == Scales::Affine {
            return m;
        }
        _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(m, bytes(small.add(STRIP))))
    }
}

#[inline(always)]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
}

#[inline(always)]
unsafe fn bytes(at: *const u8) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast()))) }
}
