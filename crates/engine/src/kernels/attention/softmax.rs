//! One chunk's step of the online softmax, for one row.

use super::CHUNK;
use crate::kernels::exp::exp2_not_above_127;
use crate::kernels::level::versions;
use crate::kernels::norm::in_pairs;
use std::ops::Range;

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

versions! {
    /// Turns a row's scores (in powers of two) into weights, zero outside `visible`, and corrects
    /// the row's running output `so_far` for a new greatest score.
    pub(crate) fn step(scores: &mut [f32; CHUNK], visible: Range<usize>, seen: &mut Seen, so_far: &mut [f32]) = body
}

versions! {
    /// `out = so_far / sum`.
    pub(crate) fn finish(so_far: &[f32], sum: f32, out: &mut [f32]) = finish_body
}

#[inline(always)]
fn body(scores: &mut [f32; CHUNK], visible: Range<usize>, seen: &mut Seen, so_far: &mut [f32]) {
    if visible.is_empty() {
        *scores = [0.0; CHUNK];
        return;
    }
    let all = visible.len() == CHUNK;
    if !all {
        // Scores outside may be anything, of keys that do not exist yet too.
        fill_outside(scores, &visible, f32::NEG_INFINITY);
    }
    let greatest = greatest_of(scores, seen.greatest);
    scores.iter_mut().for_each(|score| *score = exp2_not_above_127(*score - greatest));
    if !all {
        fill_outside(scores, &visible, 0.0);
    }
    let mut sums = [0.0f32; LANES];
    for part in scores.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            sums[lane] += part[lane];
        }
    }
    let correction = exp2_not_above_127(seen.greatest - greatest);
    seen.sum = seen.sum.mul_add(correction, in_pairs(sums));
    if seen.greatest != greatest {
        so_far.iter_mut().for_each(|x| *x *= correction);
    }
    seen.greatest = greatest;
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
fn fill_outside(scores: &mut [f32; CHUNK], visible: &Range<usize>, value: f32) {
    scores[..visible.start].fill(value);
    scores[visible.end..].fill(value);
}

#[inline(always)]
fn finish_body(so_far: &[f32], sum: f32, out: &mut [f32]) {
    let inverse = 1.0 / sum;
    for (out, x) in out.iter_mut().zip(so_far) {
        *out = x * inverse;
    }
}
