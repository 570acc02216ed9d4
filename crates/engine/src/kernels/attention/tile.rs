//! A tile of query rows against all the keys that they see.

use super::CHUNK;
use super::kept::Kept;
use super::narrow::{narrow_left, total_left};
use super::prefetch::ask;
use super::product::{BLOCKS, COLUMNS, Element, Layout, Product, multiply};
use super::scratch::Scratch;
use super::softmax::{Factors, Rows, Seen, finish, weigh};
use crate::kernels::level::Level;
use std::ops::Range;

/// Query tokens of one sequence, for one key/value head in one layer.
pub(crate) struct Tile<'a, E> {
    /// Position of the first query token.
    pub(crate) start: usize,
    /// Query tokens; times `group` they are at most `TILE_ROWS`.
    pub(crate) tokens: usize,
    /// Query heads of this key/value head.
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
    /// A token sees itself and `window - 1` before it.
    pub(crate) window: Option<usize>,
    /// Tokens a block: 16, 32 or 64.
    pub(crate) block_tokens: usize,
    /// Where this head and layer lie in the n-th block of the sequence.
    pub(crate) block: &'a dyn Fn(usize) -> Kept<E>,
}

impl<E: Element> Tile<'_, E> {
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// The positions that the token at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }

    /// Where the blocks lie that have some positions of one chunk.
    fn blocks(&self, positions: Range<usize>) -> [Option<Kept<E>>; BLOCKS] {
        let mut kept = [None; BLOCKS];
        if !positions.is_empty() {
            let first = positions.start / self.block_tokens;
            for block in first..positions.end.div_ceil(self.block_tokens) {
                kept[block - first] = Some((self.block)(block));
            }
        }
        kept
    }

    /// The bytes of the keys and of the values.
    ///
    /// # Safety
    /// As [`slices`].
    unsafe fn sides(&self, kept: &[Option<Kept<E>>; BLOCKS]) -> [[&[u8]; BLOCKS]; 2] {
        let bytes = Kept::<E>::side_bytes(self.head_dim, self.block_tokens);
        let side = |at: fn(&Kept<E>) -> *const u8| {
            // SAFETY: the caller's promise.
            unsafe { slices(kept, at, bytes) }
        };
        [side(|kept| kept.keys.cast()), side(|kept| kept.values.cast())]
    }

    /// The factors of some positions of a chunk, whose blocks are `kept`; zero elsewhere.
    ///
    /// # Safety
    /// The blocks can be read, and nobody writes to them.
    unsafe fn factors(
        &self,
        chunk: usize,
        positions: Range<usize>,
        kept: &[Option<Kept<E>>; BLOCKS],
    ) -> Factors {
        let mut factors = Factors { keys: [0.0; CHUNK], values: [0.0; CHUNK] };
        let mut position = positions.start;
        for kept in kept.iter().flatten() {
            let inside = position % self.block_tokens;
            let len = (self.block_tokens - inside).min(positions.end - position);
            // SAFETY: the caller's promise; there is one a token.
            let some = |at: *mut f32| unsafe { std::slice::from_raw_parts(at.add(inside), len) };
            let to = position - chunk..position - chunk + len;
            factors.keys[to.clone()].copy_from_slice(some(kept.key_factors));
            factors.values[to].copy_from_slice(some(kept.value_factors));
            position += len;
        }
        factors
    }
}

/// What lies at `at` of each block, `len` long.
///
/// # Safety
/// It can be read, and nobody writes to it while the slices live.
unsafe fn slices<'a, E, T>(
    kept: &[Option<Kept<E>>; BLOCKS],
    at: fn(&Kept<E>) -> *const T,
    len: usize,
) -> [&'a [T]; BLOCKS] {
    kept.each_ref().map(|kept| match kept {
        // SAFETY: the caller's promise.
        Some(kept) => unsafe { std::slice::from_raw_parts(at(kept), len) },
        None => &[],
    })
}

/// Computes a tile. `query(row)` is a row's query, of rows `[token][head of the group]`; `scale` is
/// the factor on scores. `out(row)` is where a row's output goes.
///
/// # Safety
/// Every block of positions that the tile sees can be read, and nobody writes to it meanwhile.
pub(crate) unsafe fn attend<'q, 'o, E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    scale: f32,
    query: impl Fn(usize) -> &'q [f32],
    scratch: &mut Scratch,
    mut out: impl FnMut(usize) -> &'o mut [f32],
) {
    let (rows, dim) = (tile.rows(), tile.head_dim);
    let queries = scratch.queries.as_flattened_mut()[..rows * dim].chunks_exact_mut(dim);
    for (row, (numbers, factor)) in queries.zip(&mut scratch.query_factors).enumerate() {
        narrow_left(level, query(row), total_left(E::GREATEST), numbers, factor);
        // Weights are powers of two: 2^(x log₂e) = eˣ.
        *factor *= scale * std::f32::consts::LOG2_E;
    }
    scratch.so_far[..rows * dim].fill(0.0);
    scratch.seen[..rows].fill(Seen::NOTHING);
    let last = tile.start + tile.tokens;
    // What lies before the first row's window may have been given to another sequence.
    let first = tile.visible(tile.start).start;
    let mut next = tile.blocks(first..last.min(first / CHUNK * CHUNK + CHUNK));
    // SAFETY: the caller's promise.
    unsafe { tile.sides(&next) }.iter().for_each(ask);
    for chunk in (first / CHUNK * CHUNK..last).step_by(CHUNK) {
        let positions = first.max(chunk)..last.min(chunk + CHUNK);
        let kept = next;
        next = tile.blocks(positions.end..last.min(chunk + 2 * CHUNK));
        // SAFETY: the caller's promise.
        unsafe {
            next.iter().flatten().for_each(Kept::ask_factors);
            let [next_keys, next_values] = tile.sides(&next);
            scores(level, tile, chunk, positions.clone(), &kept, &next_keys, scratch);
            let factors = tile.factors(chunk, positions.clone(), &kept);
            weights(level, tile, chunk, positions.end, &factors, scratch);
            add_values(level, tile, chunk, positions, &kept, &next_values, scratch);
        }
    }
    for row in 0..rows {
        finish(level, &scratch.so_far[row * dim..][..dim], scratch.seen[row].sum, out(row));
    }
}

/// Scores of all rows with the keys of some positions of a chunk; those of keys before them mean
/// nothing. Asks for `ahead` meanwhile.
///
/// # Safety
/// As [`attend`].
unsafe fn scores<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    positions: Range<usize>,
    kept: &[Option<Kept<E>>; BLOCKS],
    ahead: &[&[u8]; BLOCKS],
    scratch: &mut Scratch,
) {
    let (dim, tokens) = (tile.head_dim, tile.block_tokens);
    // SAFETY: the caller's promise.
    let keys = unsafe { slices(kept, |kept| kept.keys.cast_const(), dim / 2 * tokens) };
    let from = positions.start / tokens * tokens;
    let product = Product {
        a: &scratch.queries,
        a_stride: dim / 2,
        factors: &scratch.query_factors,
        blocks: keys,
        layout: Layout::Beside,
        block_tokens: tokens,
        rows: tile.rows(),
        depth: dim / 2,
        columns: (positions.end - from).next_multiple_of(COLUMNS),
        keep: None,
        ahead,
    };
    multiply(level, product, &mut scratch.scores[from - chunk..], CHUNK);
}

/// From scores to the weights of each row, and the rows' corrections.
fn weights<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    end: usize,
    factors: &Factors,
    scratch: &mut Scratch,
) {
    let rows = tile.rows();
    for (row, visible) in scratch.visible[..rows].iter_mut().enumerate() {
        let seen = tile.visible(tile.start + row / tile.group);
        *visible = (seen.start.clamp(chunk, end) - chunk, seen.end.clamp(chunk, end) - chunk);
    }
    let rows = Rows {
        scores: &mut scratch.scores.as_chunks_mut().0[..rows],
        visible: &scratch.visible[..rows],
        seen: &mut scratch.seen[..rows],
        corrections: &mut scratch.corrections[..rows],
        weights: &mut scratch.weights.as_flattened_mut().as_chunks_mut().0[..rows],
        weight_factors: &mut scratch.weight_factors[..rows],
    };
    weigh(level, rows, factors, total_left(E::GREATEST));
}

/// Adds the weighted values of some positions of a chunk. Asks for `ahead` meanwhile.
///
/// # Safety
/// As [`attend`].
unsafe fn add_values<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    positions: Range<usize>,
    kept: &[Option<Kept<E>>; BLOCKS],
    ahead: &[&[u8]; BLOCKS],
    scratch: &mut Scratch,
) {
    let (dim, tokens) = (tile.head_dim, tile.block_tokens);
    // SAFETY: the caller's promise.
    let values = unsafe { slices(kept, |kept| kept.values.cast_const(), tokens / 2 * dim) };
    // Of a pair that is not wholly among the positions the other half has no weight.
    let pairs = positions.start / 2..positions.end.div_ceil(2);
    let product = Product {
        a: &scratch.weights[pairs.start - chunk / 2..],
        a_stride: CHUNK / 2,
        factors: &scratch.weight_factors,
        blocks: values,
        layout: Layout::Stacked { first: pairs.start % (tokens / 2) },
        block_tokens: tokens,
        rows: tile.rows(),
        depth: pairs.len(),
        columns: dim,
        keep: Some(&scratch.corrections),
        ahead,
    };
    multiply(level, product, &mut scratch.so_far, dim);
}
