//! AVX-512 with VNNI: a strip is one vector of 16 rows.

#![allow(clippy::wildcard_imports, reason = "intrinsics, whose names say where they are from")]

mod blocks;
mod codes;
mod floats;
mod quantize;

pub(super) use quantize::quantize;

use super::format::{Format, by_format};
use super::job::{BlockKernel, FloatKernel};
use plumb_gguf::BlockType;

pub(super) fn block_kernel(ty: BlockType, rows: usize) -> (usize, BlockKernel) {
    by_format!(ty, F => blocks_of::<F>(rows), _ => unreachable!("floats are not blocks"))
}

fn blocks_of<F: Format>(rows: usize) -> (usize, BlockKernel) {
    match rows {
        1 => (1, blocks::kernel::<F, 1>),
        2 => (2, blocks::kernel::<F, 2>),
        3 => (3, blocks::kernel::<F, 3>),
        4 => (4, blocks::kernel::<F, 4>),
        5 => (5, blocks::kernel::<F, 5>),
        6 => (6, blocks::kernel::<F, 6>),
        7 => (7, blocks::kernel::<F, 7>),
        8..12 => (8, blocks::kernel::<F, 8>),
        _ => (12, blocks::kernel::<F, 12>),
    }
}

pub(super) fn float_kernel(ty: BlockType, rows: usize) -> (usize, FloatKernel) {
    match ty {
        BlockType::F16 => floats_of::<floats::F16>(rows),
        BlockType::BF16 => floats_of::<floats::BF16>(rows),
        _ => floats_of::<floats::F32>(rows),
    }
}

fn floats_of<E: floats::Element>(rows: usize) -> (usize, FloatKernel) {
    match rows {
        1 => (1, floats::kernel::<E, 1>),
        2 | 3 => (2, floats::kernel::<E, 2>),
        4..=7 => (4, floats::kernel::<E, 4>),
        _ => (8, floats::kernel::<E, 8>),
    }
}
