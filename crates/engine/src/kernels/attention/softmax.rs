//! One chunk's step of the online softmax: from sums of products to weights in integers.

use super::CHUNK;
use super::narrow::{factor_left, inverse, round};
use crate::kernels::exp::exp2_not_above_127;
use crate::kernels::level::versions;
use crate::kernels::norm::in_pairs;

/// Independent sums of the weights.
const LANES: usize = 16;

/// What a row has seen: the greatest score and the sum of `2^(score - greatest)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) greatest: f32,
    pub(crate) sum: f32,
}

impl Seen {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { greatest: f32::NEG_INFINITY, sum: 0.0 };
}

/// The factors of the keys and values of a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    pub(crate) keys: [f32; CHUNK],
    pub(crate) values: [f32; CHUNK],
}

/// All rows of a tile, in one chunk.
pub(crate) struct Rows<'a> {
    /// Scores but for the factors of keys; nothing afterwards.
    pub(crate) scores: &'a mut [[f32; CHUNK]],
    /// The places in the chunk that a row sees, from one to another.
    pub(crate) visible: &'a [(usize, usize)],
    pub(crate) seen: &'a mut [Seen],
    /// What a row's running output is to be multiplied by, for a new greatest score.
    pub(crate) corrections: &'a mut [f32],
    /// Weights, the factors of values included, in integers.
    pub(crate) weights: &'a mut [[i16; CHUNK]],
    pub(crate) weight_factors: &'a mut [f32],
}

versions! {
    /// Turns scores (in powers of two) into weights, zero outside what is visible, whose integers add
    /// up to `total` at most.
    pub(crate) fn weigh(rows: Rows<'_>, factors: &Factors, total: f32) = body
}

versions! {
    /// `out = so_far / sum`.
    pub(crate) fn finish(so_far: &[f32], sum: f32, out: &mut [f32]) = finish_body
}

/// In passes over all rows: within one row each step waits for the one before, and rows do not wait
/// for one another.
#[inline(always)]
fn body(rows: Rows<'_>, factors: &Factors, total: f32) {
    let Rows { scores, visible, seen, corrections, weights, weight_factors } = rows;
    let places = visible.iter().copied();
    for (row, (scores, visible)) in scores.iter_mut().zip(places.clone()).enumerate() {
        if visible.0 >= visible.1 {
            corrections[row] = 1.0;
            continue;
        }
        scores.iter_mut().zip(&factors.keys).for_each(|(score, factor)| *score *= factor);
        // Scores outside may be anything, of keys that do not exist yet too.
        set_outside(scores, visible, f32::NEG_INFINITY);
        let before = std::mem::replace(&mut seen[row].greatest, 0.0);
        let greatest = greatest_of(scores, before);
        seen[row].greatest = greatest;
        corrections[row] = exp2_not_above_127(before - greatest);
    }
    for (row, (scores, visible)) in scores.iter_mut().zip(places).enumerate() {
        if visible.0 >= visible.1 {
            *scores = [0.0; CHUNK];
            weight_factors[row] = 0.0;
            continue;
        }
        let Seen { greatest, sum } = &mut seen[row];
        scores.iter_mut().for_each(|score| *score = exp2_not_above_127(*score - *greatest));
        set_outside(scores, visible, 0.0);
        let mut sums = [0.0f32; LANES];
        for part in scores.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                sums[lane] += part[lane];
            }
        }
        *sum = sum.mul_add(corrections[row], in_pairs(sums));
        scores.iter_mut().zip(&factors.values).for_each(|(weight, factor)| *weight *= factor);
        // Nor must a factor that others see decide anything.
        set_outside(scores, visible, 0.0);
        weight_factors[row] = factor_left(scores, total);
    }
    for ((scores, weights), factor) in scores.iter().zip(weights).zip(weight_factors) {
        round(scores, inverse(*factor), weights);
    }
}

/// The greatest score, or `before` if that is greater. Which of two equals is taken makes no
/// difference, so that any order will do.
#[inline(always)]
fn greatest_of(scores: &[f32; CHUNK], before: f32) -> f32 {
    let mut greatest = [before; LANES];
    for part in scores.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            greatest[lane] = if part[lane] > greatest[lane] { part[lane] } else { greatest[lane] };
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            let other = greatest[lane + half];
            greatest[lane] = if other > greatest[lane] { other } else { greatest[lane] };
        }
        half /= 2;
    }
    greatest[0]
}

#[inline(always)]
fn set_outside(scores: &mut [f32; CHUNK], (start, end): (usize, usize), value: f32) {
    if end - start == CHUNK {
        return;
    }
    for (place, score) in scores.iter_mut().enumerate() {
        *score = if (start..end).contains(&place) { *score } else { value };
    }
}

#[inline(always)]
fn finish_body(so_far: &[f32], sum: f32, out: &mut [f32]) {
    let inverse = 1.0 / sum;
    for (out, x) in out.iter_mut().zip(so_far) {
        *out = x * inverse;
    }
}
