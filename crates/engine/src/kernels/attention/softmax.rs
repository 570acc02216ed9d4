//! One chunk's step of the online softmax: from sums of products to weights in integers.

use super::CHUNK;
use super::narrow::{factor_of_section, inverse, round};
use crate::kernels::exp::exp2_of_each;
use crate::kernels::level::versions;
use crate::kernels::wide::{LANES, Wide, wide_versions};

/// A row of a chunk in vectors.
const PARTS: usize = CHUNK / LANES;

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

wide_versions! {
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
unsafe fn body<W: Wide>(rows: Rows<'_>, factors: &Factors, total: f32) {
    let Rows { scores, visible, seen, corrections, weights, weight_factors } = rows;
    let rows = scores.len();
    let (visible, seen, corrections) =
        (&visible[..rows], &mut seen[..rows], &mut corrections[..rows]);
    // SAFETY: the caller's promise.
    unsafe {
        let keys = load::<W>(&factors.keys);
        for (row, scores) in scores.iter_mut().enumerate() {
            let places = places(visible[row]);
            if places == 0 {
                corrections[row] = 0.0;
                continue;
            }
            let before = seen[row].greatest;
            let mut greatest = W::all(before);
            let parts = load::<W>(scores);
            for (part, to) in scores.as_chunks_mut().0.iter_mut().enumerate() {
                let mut score = parts[part].mul(keys[part]);
                // Scores outside may be anything, of keys that do not exist yet too.
                if places != u64::MAX {
                    score = score.keep(of_part(places, part), W::all(f32::NEG_INFINITY));
                }
                greatest = score.greater(greatest);
                score.store(to);
            }
            let greatest = greatest.greatest();
            seen[row].greatest = greatest;
            corrections[row] = before - greatest;
        }
        exp2_of_all::<W>(corrections);
        let values = load::<W>(&factors.values);
        let to = weights.iter_mut().zip(weight_factors);
        for (row, (scores, (weights, factor))) in scores.iter().zip(to).enumerate() {
            let places = places(visible[row]);
            if places == 0 {
                (*weights, *factor) = ([0; CHUNK], 0.0);
                continue;
            }
            let Seen { greatest, sum } = &mut seen[row];
            let mut parts = load::<W>(scores);
            let mut sums = W::all(0.0);
            for (i, part) in parts.iter_mut().enumerate() {
                let weight = exp2_of_each(part.sub(W::all(*greatest)));
                let weight = within(weight, places, i);
                sums = sums.add(weight);
                // Nor must a factor that others see decide anything.
                *part = within(weight.mul(values[i]), places, i);
            }
            *sum = sum.mul_add(corrections[row], sums.sum());
            *factor = factor_of_section(&parts, total);
            let inverse = W::all(inverse(*factor));
            for (part, to) in parts.into_iter().zip(weights.as_chunks_mut().0) {
                round(part, inverse).store_words(to);
            }
        }
    }
}

#[inline(always)]
unsafe fn load<W: Wide>(row: &[f32; CHUNK]) -> [W; PARTS] {
    // SAFETY: the caller's promise.
    std::array::from_fn(|part| unsafe { W::load(&row.as_chunks().0[part]) })
}

/// A bit for each place that a row sees.
#[inline(always)]
fn places((start, end): (usize, usize)) -> u64 {
    match end.saturating_sub(start) {
        0 => 0,
        len => u64::MAX >> (CHUNK - len) << start,
    }
}

#[inline(always)]
fn of_part(places: u64, part: usize) -> u16 {
    (places >> (part * LANES)) as u16
}

/// Zero outside of `places`.
#[inline(always)]
unsafe fn within<W: Wide>(weight: W, places: u64, part: usize) -> W {
    if places == u64::MAX {
        return weight;
    }
    // SAFETY: the caller's promise.
    unsafe { weight.keep(of_part(places, part), W::all(0.0)) }
}

/// 2ˣ of each, none above 0.
#[inline(always)]
unsafe fn exp2_of_all<W: Wide>(xs: &mut [f32]) {
    let (whole, rest) = xs.as_chunks_mut();
    let mut padded = [0.0; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    for xs in whole.iter_mut().chain([&mut padded]) {
        // SAFETY: the caller's promise.
        unsafe { exp2_of_each(W::load(xs)).store(xs) };
    }
    rest.copy_from_slice(&padded[..rest.len()]);
}

#[inline(always)]
fn finish_body(so_far: &[f32], sum: f32, out: &mut [f32]) {
    let inverse = 1.0 / sum;
    for (out, x) in out.iter_mut().zip(so_far) {
        *out = x * inverse;
    }
}
