//! The reference: plain Rust for any machine, written for clarity. All other kernels are tested
//! against it, bit for bit.

mod blocks;
mod floats;
mod quantize;

pub(super) use quantize::quantize;

use super::format::{BLOCK, Format, by_format};
use super::job::{BlockKernel, FloatKernel};
use plumb_gguf::BlockType;

pub(super) fn block_kernel(ty: BlockType, _rows: usize) -> (usize, BlockKernel) {
    let kernel: BlockKernel =
        by_format!(ty, F => blocks::kernel::<F>, _ => unreachable!("floats are not blocks"));
    (1, kernel)
}

pub(super) fn float_kernel(ty: BlockType, _rows: usize) -> (usize, FloatKernel) {
    match ty {
        BlockType::F16 => (1, floats::kernel::<2, F16>),
        BlockType::BF16 => (1, floats::kernel::<2, BF16>),
        _ => (1, floats::kernel::<4, F32>),
    }
}

/// A float type's way from bytes to `f32`.
trait Element<const SIZE: usize> {
    fn value(bytes: [u8; SIZE]) -> f32;
}

struct F32;
struct F16;
struct BF16;

impl Element<4> for F32 {
    fn value(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }
}

impl Element<2> for F16 {
    fn value(bytes: [u8; 2]) -> f32 {
        half::f16::from_le_bytes(bytes).to_f32()
    }
}

impl Element<2> for BF16 {
    fn value(bytes: [u8; 2]) -> f32 {
        half::bf16::from_le_bytes(bytes).to_f32()
    }
}

/// Dequantises row `lane` of a strip.
pub(super) fn row(ty: BlockType, strip: &[u8], lane: usize, out: &mut [f32]) {
    by_format!(ty, F => block_row::<F>(strip, lane, out), _ => match ty {
        BlockType::F16 => floats::row::<2, F16>(strip, lane, out),
        BlockType::BF16 => floats::row::<2, BF16>(strip, lane, out),
        _ => floats::row::<4, F32>(strip, lane, out),
    });
}

fn block_row<F: Format>(strip: &[u8], lane: usize, out: &mut [f32]) {
    let chunks = strip.chunks_exact(F::CHUNK);
    for (chunk, out) in chunks.zip(out.chunks_exact_mut(F::BLOCKS * BLOCK)) {
        for (i, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let block = blocks::Block::<F>::new(chunk, i);
            let steps = out.chunks_exact_mut(BLOCK / F::STEPS);
            for (step, out) in steps.enumerate() {
                let (scale, min) = (block.scale(lane, step), block.min(lane));
                for (k, out) in out.iter_mut().enumerate() {
                    let code = block.code(lane, step * (BLOCK / F::STEPS) + k);
                    // The code without its offset: exact, so that only the minimum rounds.
                    let code = i32::from(code) - if F::OFFSET == 0 { 0 } else { 1 << F::OFFSET };
                    *out = scale * code as f32 + min;
                }
            }
        }
    }
}
