//! Dequantisation of every type, written for clarity: the reference that kernels are tested by.
//!
//! Layouts are those of ggml's `ggml-common.h`. All numbers are little-endian.

use crate::BlockType;
use half::{bf16, f16};

/// Writes the elements of a row (or of any run of whole blocks) to `out`.
///
/// # Panics
/// If `bytes` is not exactly the blocks that `out` needs.
pub fn row(ty: BlockType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(ty.row_bytes(out.len()), Some(bytes.len()), "row of {ty}: bytes and elements");
    let block: fn(&[u8], &mut [f32]) = match ty {
        BlockType::F32 => |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        BlockType::F16 => |b, y| y[0] = half_at(b, 0),
        BlockType::BF16 => |b, y| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        BlockType::Q8_0 => q8_0,
        BlockType::Q4_0 => q4_0,
        BlockType::Q4_1 => q4_1,
        BlockType::Q5_0 => q5_0,
        BlockType::Q5_1 => q5_1,
        BlockType::Q4_K => q4_k,
        BlockType::Q5_K => q5_k,
        BlockType::Q6_K => q6_k,
    };
    for (b, y) in bytes.chunks_exact(ty.block_bytes()).zip(out.chunks_exact_mut(ty.block_len())) {
        block(b, y);
    }
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

fn q8_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = f32::from(q.cast_signed()) * d;
    }
}

/// Byte `j` of 16 holds element `j` in its low nibble and `j + 16` in its high one.
fn nibbles(qs: &[u8], y: &mut [f32], value: impl Fn(u8, usize) -> f32) {
    for (j, &q) in qs.iter().enumerate() {
        y[j] = value(q & 15, j);
        y[j + 16] = value(q >> 4, j + 16);
    }
}

fn q4_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    nibbles(&b[2..18], y, |q, _| (f32::from(q) - 8.0) * d);
}

fn q4_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    nibbles(&b[4..20], y, |q, _| f32::from(q) * d + m);
}

/// The fifth bits of 32 elements: bit `j` of a little-endian word belongs to element `j`.
fn fifth_bits(b: &[u8]) -> impl Fn(usize) -> u8 {
    let word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    move |j| ((word >> j & 1) as u8) << 4
}

fn q5_0(b: &[u8], y: &mut [f32]) {
    let (d, high) = (half_at(b, 0), fifth_bits(&b[2..6]));
    nibbles(&b[6..22], y, |q, j| (f32::from(q | high(j)) - 16.0) * d);
}

fn q5_1(b: &[u8], y: &mut [f32]) {
    let (d, m, high) = (half_at(b, 0), half_at(b, 2), fifth_bits(&b[4..8]));
    nibbles(&b[8..24], y, |q, j| f32::from(q | high(j)) * d + m);
}

/// Group `j`'s six-bit scale and minimum, of 8 each packed into 12 bytes: the first four of each
/// take the low six bits of a byte, whose spare high bits complete the nibbles of the last four.
fn scale_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, s[j + 4] >> 4 | (s[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(b: &[u8], y: &mut [f32]) {
    k_groups(b, &b[16..144], y, |_, _| 0);
}

fn q5_k(b: &[u8], y: &mut [f32]) {
    k_groups(b, &b[48..176], y, |l, group| (b[16 + l] >> group & 1) << 4);
}

/// 8 groups of 32: groups `2i` and `2i + 1` are the low and high nibbles of the same 32 bytes.
fn k_groups(b: &[u8], qs: &[u8], y: &mut [f32], high: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(&b[4..16], group);
        let (scale, min) = (d * scale, dmin * min);
        let qs = &qs[group / 2 * 32..][..32];
        for (l, (y, &q)) in y.iter_mut().zip(qs).enumerate() {
            let low = if group % 2 == 0 { q & 15 } else { q >> 4 };
            *y = scale * f32::from(low | high(l, group)) - min;
        }
    }
}

/// Two halves of 128, each four runs of 32: two in low nibbles, two in high ones; the upper two
/// bits of all four runs share one byte.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (ql, qh, scales, d) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for (run, y) in y.chunks_exact_mut(32).enumerate() {
        let (half, quarter) = (run / 4, run % 4);
        for (l, y) in y.iter_mut().enumerate() {
            let low = ql[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
            let high = qh[half * 32 + l] >> (quarter * 2) & 3;
            let scale = f32::from(scales[run * 2 + l / 16].cast_signed());
            *y = d * scale * (f32::from(low | high << 4) - 32.0);
        }
    }
}
