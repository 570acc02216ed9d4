//! A tile of query rows against all the keys that they see.

use super::product::{COLUMNS, Product, multiply};
use super::softmax::{Seen, finish, step};
use super::{CHUNK, TILE_ROWS};
use crate::kernels::level::Level;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Query tokens of one sequence, for one key/value head in one layer.
pub(crate) struct Tile<'a> {
    /// Position of the first query token.
    pub(crate) start: usize,
    /// Query tokens; times `group` they are at most [`TILE_ROWS`].
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

/// A thread's own memory for tiles.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Scaled queries `[row][head_dim]`.
    queries: Vec<f32>,
    /// Keys `[head_dim][CHUNK]`.
    keys: Vec<f32>,
    /// Values `[CHUNK][head_dim]`.
    values: Vec<f32>,
    /// Weights `[row][CHUNK]`.
    weights: Vec<f32>,
    /// Running outputs `[row][head_dim]`.
    so_far: Vec<f32>,
    seen: Vec<Seen>,
}

impl Scratch {
    pub(crate) fn new(head_dim: usize) -> Self {
        Self {
            queries: vec![0.0; TILE_ROWS * head_dim],
            keys: vec![0.0; head_dim * CHUNK],
            values: vec![0.0; head_dim * CHUNK],
            weights: vec![0.0; TILE_ROWS * CHUNK],
            so_far: vec![0.0; TILE_ROWS * head_dim],
            seen: vec![Seen::NOTHING; TILE_ROWS],
        }
    }

    /// Bytes of one such scratch.
    pub(crate) fn bytes(head_dim: usize) -> usize {
        4 * (2 * head_dim * CHUNK + TILE_ROWS * (CHUNK + 2 * head_dim + 2))
    }
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

    /// Reads the keys and values of the chunk that begins at position `from` up to `to`.
    ///
    /// # Safety
    /// Every block of these positions can be read.
    unsafe fn read(&self, from: usize, to: usize, scratch: &mut Scratch) {
        let (tokens, dim) = (self.block_tokens, self.head_dim);
        for first in (from..to).step_by(tokens) {
            let (keys, values) = (self.block)(first / tokens);
            // SAFETY: the caller's promise; a head has `dim * tokens` keys and values in a block.
            let (keys, values) = unsafe {
                (
                    std::slice::from_raw_parts(keys, dim * tokens),
                    std::slice::from_raw_parts(values, dim * tokens),
                )
            };
            let at = first - from;
            for (row, keys) in scratch.keys.chunks_exact_mut(CHUNK).zip(keys.chunks_exact(tokens)) {
                keys.convert_to_f32_slice(&mut row[at..at + tokens]);
            }
            let filled = tokens.min(to - first);
            values[..filled * dim]
                .convert_to_f32_slice(&mut scratch.values[at * dim..(at + filled) * dim]);
        }
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
    let first_chunk = tile.visible(tile.start).start / CHUNK * CHUNK;
    for from in (first_chunk..last).step_by(CHUNK) {
        let to = last.min(from + CHUNK);
        // SAFETY: the caller's promise.
        unsafe { tile.read(from, to, scratch) };
        scores(level, tile, to - from, scratch);
        for row in 0..rows {
            let seen = tile.visible(tile.start + row / tile.group);
            let inside = seen.start.clamp(from, to) - from..seen.end.clamp(from, to) - from;
            let weights =
                scratch.weights[row * CHUNK..].first_chunk_mut().expect("a row of weights");
            step(
                level,
                weights,
                inside,
                &mut scratch.seen[row],
                &mut scratch.so_far[row * dim..][..dim],
            );
        }
        // What lies before the first row's window may not have been kept: it must not even be
        // multiplied by zero.
        let hidden = tile.visible(tile.start).start.saturating_sub(from);
        let weighted = Product {
            a: &scratch.weights[hidden..],
            a_stride: CHUNK,
            b: &scratch.values[hidden * dim..],
            b_stride: dim,
            rows,
            depth: to - from - hidden,
            columns: dim,
        };
        multiply(level, weighted, &mut scratch.so_far, dim);
    }
    for row in 0..rows {
        finish(level, &scratch.so_far[row * dim..][..dim], scratch.seen[row].sum, out(row));
    }
}

/// Scores of all rows with the first `keys` keys of the chunk.
fn scores(level: Level, tile: &Tile<'_>, keys: usize, scratch: &mut Scratch) {
    let rows = tile.rows();
    let columns = keys.next_multiple_of(COLUMNS);
    for row in scratch.weights[..rows * CHUNK].chunks_exact_mut(CHUNK) {
        row[..columns].fill(0.0);
    }
    let product = Product {
        a: &scratch.queries,
        a_stride: tile.head_dim,
        b: &scratch.keys,
        b_stride: CHUNK,
        rows,
        depth: tile.head_dim,
        columns,
    };
    multiply(level, product, &mut scratch.weights, CHUNK);
}
