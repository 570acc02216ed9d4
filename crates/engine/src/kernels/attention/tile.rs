//! A tile of query rows against all the keys that they see.

use super::CHUNK;
use super::convert::widen;
use super::prefetch::prefetch;
use super::product::{BESIDE, COLUMNS, Product, Right, multiply};
use super::scratch::Scratch;
use super::softmax::{Seen, finish, step};
use crate::kernels::level::Level;
use half::f16;
use std::ops::Range;

/// Tiles of at most this many rows multiply by halves as they are: converting them first pays for
/// itself when several strips of rows read them again.
const FEW_ROWS: usize = 12;

/// Query tokens of one sequence, for one key/value head in one layer.
pub(crate) struct Tile<'a> {
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
    /// Where the K and the V of this head and layer begin, for the n-th block of the sequence.
    pub(crate) block: &'a dyn Fn(usize) -> (*const f16, *const f16),
}

impl Tile<'_> {
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// The positions that the token at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }

    /// The keys `[head_dim][token]` and values `[token][head_dim]` of the block of a position.
    ///
    /// # Safety
    /// The block can be read, and nobody writes to it while the slices live.
    unsafe fn block_of(&self, position: usize) -> (&[f16], &[f16]) {
        let (keys, values) = (self.block)(position / self.block_tokens);
        let len = self.head_dim * self.block_tokens;
        // SAFETY: the caller's promise; both have one element a token and dimension.
        unsafe { (std::slice::from_raw_parts(keys, len), std::slice::from_raw_parts(values, len)) }
    }
}

/// Computes a tile. `query(row)` is a row's query, of rows `[token][head of the group]`; `scale` is
/// the factor on scores. `out(row)` is where a row's output goes.
///
/// # Safety
/// Every block of positions that the tile sees can be read, and nobody writes to it meanwhile.
pub(crate) unsafe fn attend<'q, 'o>(
    level: Level,
    tile: &Tile<'_>,
    scale: f32,
    query: impl Fn(usize) -> &'q [f32],
    scratch: &mut Scratch,
    mut out: impl FnMut(usize) -> &'o mut [f32],
) {
    let (rows, dim) = (tile.rows(), tile.head_dim);
    // Weights are powers of two: 2^(x log₂e) = eˣ.
    let scale = scale * std::f32::consts::LOG2_E;
    for (row, scaled) in scratch.queries[..rows * dim].chunks_exact_mut(dim).enumerate() {
        scaled.iter_mut().zip(query(row)).for_each(|(s, q)| *s = q * scale);
    }
    scratch.so_far[..rows * dim].fill(0.0);
    scratch.seen[..rows].fill(Seen::NOTHING);
    let last = tile.start + tile.tokens;
    // What lies before the first row's window may not have been kept: it must not even be
    // multiplied by zero.
    let first = tile.visible(tile.start).start;
    for chunk in (first / CHUNK * CHUNK..last).step_by(CHUNK) {
        let positions = first.max(chunk)..last.min(chunk + CHUNK);
        // SAFETY: the caller's promise.
        unsafe {
            scores(level, tile, chunk, positions.clone(), scratch);
            weights(level, tile, chunk, positions.clone(), scratch);
            add_values(level, tile, chunk, positions, scratch);
        }
    }
    for row in 0..rows {
        finish(level, &scratch.so_far[row * dim..][..dim], scratch.seen[row].sum, out(row));
    }
}

/// Scores of all rows with the keys of some positions of a chunk; those of keys before them mean
/// nothing.
///
/// # Safety
/// As [`attend`].
unsafe fn scores(
    level: Level,
    tile: &Tile<'_>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let (rows, dim, tokens) = (tile.rows(), tile.head_dim, tile.block_tokens);
    let product = |b, b_stride, columns| Product {
        a: &scratch.queries,
        a_stride: dim,
        b,
        b_stride,
        rows,
        depth: dim,
        columns,
        add: false,
    };
    let to = positions.end;
    // Blocks before the window may have been given to another sequence.
    let from = positions.start / tokens * tokens;
    let mut beside: [&[f16]; BESIDE] = [&[]; BESIDE];
    for (i, position) in (from..to).step_by(tokens).enumerate() {
        // SAFETY: the caller's promise.
        let (keys, values) = unsafe { tile.block_of(position) };
        if rows <= FEW_ROWS {
            // Read next, and too short for the machine to see it coming.
            prefetch(values);
            beside[i] = keys;
        } else {
            widen_keys(level, keys, tokens, &mut scratch.keys[position - chunk..]);
        }
    }
    if rows <= FEW_ROWS {
        let product = product(Right::Beside(beside), tokens, (to - from).next_multiple_of(COLUMNS));
        multiply(level, product, &mut scratch.weights[from - chunk..], CHUNK);
        return;
    }
    let columns = (to - chunk).next_multiple_of(COLUMNS);
    let product = product(Right::Floats(&scratch.keys), CHUNK, columns);
    multiply(level, product, &mut scratch.weights, CHUNK);
}

/// From `[head_dim][tokens]` halves to columns of `[head_dim][CHUNK]` floats.
fn widen_keys(level: Level, keys: &[f16], tokens: usize, out: &mut [f32]) {
    for (keys, out) in keys.chunks_exact(tokens).zip(out.chunks_mut(CHUNK)) {
        widen(level, keys, &mut out[..tokens]);
    }
}

/// From scores to the weights of each row, and the rows' corrections.
fn weights(
    level: Level,
    tile: &Tile<'_>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let dim = tile.head_dim;
    for row in 0..tile.rows() {
        let seen = tile.visible(tile.start + row / tile.group);
        let inside = seen.start.clamp(chunk, positions.end) - chunk
            ..seen.end.clamp(chunk, positions.end) - chunk;
        let weights = scratch.weights[row * CHUNK..].first_chunk_mut().expect("a row of weights");
        step(
            level,
            weights,
            inside,
            &mut scratch.seen[row],
            &mut scratch.so_far[row * dim..][..dim],
        );
    }
}

/// Adds the weighted values of some positions of a chunk.
///
/// # Safety
/// As [`attend`].
unsafe fn add_values(
    level: Level,
    tile: &Tile<'_>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let (rows, dim, tokens) = (tile.rows(), tile.head_dim, tile.block_tokens);
    let product = |b, first: usize, depth| Product {
        a: &scratch.weights[first - chunk..],
        a_stride: CHUNK,
        b,
        b_stride: dim,
        rows,
        depth,
        columns: dim,
        add: true,
    };
    let mut position = positions.start;
    while position < positions.end {
        let end = (position / tokens * tokens + tokens).min(positions.end);
        // SAFETY: the caller's promise.
        let (_, values) = unsafe { tile.block_of(position) };
        let values = &values[position % tokens * dim..][..(end - position) * dim];
        if rows <= FEW_ROWS {
            if position + CHUNK < tile.start + tile.tokens {
                // SAFETY: the caller's promise: the tile sees the position a chunk on.
                prefetch(unsafe { tile.block_of(position + CHUNK) }.0);
            }
            multiply(
                level,
                product(Right::Halves(values), position, end - position),
                &mut scratch.so_far,
                dim,
            );
        } else {
            widen(
                level,
                values,
                &mut scratch.values[(position - chunk) * dim..(end - chunk) * dim],
            );
        }
        position = end;
    }
    if rows > FEW_ROWS {
        let values = Right::Floats(&scratch.values[(positions.start - chunk) * dim..]);
        multiply(
            level,
            product(values, positions.start, positions.len()),
            &mut scratch.so_far,
            dim,
        );
    }
}
