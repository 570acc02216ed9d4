//! AVX-512 with VNNI: a strip is one vector of 16 rows.

#![allow(clippy::wildcard_imports, reason = "intrinsics, whose names say where they are from")]

mod blocks;
mod codes;
mod floats;
mod quantize;

pub(super) use quantize::quantize;

use super::format::{Format, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use super::job::{BlockKernel, FloatKernel};
use plumb_gguf::BlockType;

pub(super) fn block_kernel(ty: BlockType, rows: usize) -> (usize, BlockKernel) {
    match ty {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => unreachable!("floats are not blocks"),
        BlockType::Q8_0 => blocks_of::<Q8_0>(rows),
        BlockType::Q4_0 => blocks_of::<Q4_0>(rows),
        BlockType::Q4_1 => blocks_of::<Q4_1>(rows),
        BlockType::Q5_0 => blocks_of::<Q5_0>(rows),
        BlockType::Q5_1 => blocks_of::<Q5_1>(rows),
        BlockType::Q4_K => blocks_of::<Q4_K>(rows),
        BlockType::Q5_K => blocks_of::<Q5_K>(rows),
        BlockType::Q6_K => blocks_of::<Q6_K>(rows),
    }
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
