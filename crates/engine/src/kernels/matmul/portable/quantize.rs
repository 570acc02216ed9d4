//! Quantises a row of activations.

use super::super::activations::{Block, TINY, each_block};
use super::super::format::BLOCK;

/// # Safety
/// `out` must be writable for a record every `step`, one for each 32 columns of `x` or part of them.
pub(in super::super) unsafe fn quantize(x: &[f32], out: *mut Block, step: usize) {
    // SAFETY: the caller's.
    each_block(x, |i, x| unsafe { out.add(i * step).write(block(x)) });
}

pub(in super::super) fn block(x: &[f32; BLOCK]) -> Block {
    // Compared as bits, magnitudes order with infinity and then NaN above every number.
    let largest = x.iter().map(|x| x.to_bits() & !(1 << 31)).max().unwrap_or(0);
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return Block::POISON;
    }
    if largest < TINY {
        return Block::ZERO;
    }
    let (d, inverse) = (largest / 127.0, 127.0 / largest);
    let q = x.map(|x| (x * inverse).round_ties_even() as i8);
    let sum = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum::<i32>();
    Block { q, d, ds: d * sum(&q) as f32, neg_sum: -sum(&q), neg_high: -sum(&q[16..]) }
}
