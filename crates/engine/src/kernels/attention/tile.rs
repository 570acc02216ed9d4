//! A tile of query rows against all the keys that they see.

use super::CHUNK;
use super::kept::Kept;
use super::narrow::scale;
use super::product::{BLOCKS, COLUMNS, Element, Layout, Product, multiply, no_blocks};
use super::scratch::Scratch;
use super::softmax::{Seen, finish, step};
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

    /// The keys `[head_dim][token]` and values `[token][head_dim]` of the blocks of some positions
    /// of one chunk.
    ///
    /// # Safety
    /// The blocks can be read, and nobody writes to them while the slices live.
    unsafe fn blocks_of(&self, positions: Range<usize>) -> ([&[E]; BLOCKS], [&[E]; BLOCKS]) {
        let (mut keys, mut values) = (no_blocks(), no_blocks());
        if positions.is_empty() {
            return (keys, values);
        }
        let len = self.head_dim * self.block_tokens;
        let blocks = positions.start / self.block_tokens..positions.end.div_ceil(self.block_tokens);
        for (i, block) in blocks.enumerate() {
            let kept = (self.block)(block);
            let slice = |at: *mut E| {
                // SAFETY: the caller's promise; both have one element a token and dimension.
                unsafe { std::slice::from_raw_parts(at.cast_const(), len) }
            };
            (keys[i], values[i]) = (slice(kept.keys), slice(kept.values));
        }
        (keys, values)
    }

    /// The factors of the keys and of the values of some positions of a chunk; zero elsewhere.
    ///
    /// # Safety
    /// As [`blocks_of`](Self::blocks_of), of elements that have factors.
    unsafe fn factors_of(&self, chunk: usize, positions: Range<usize>) -> [[f32; CHUNK]; 2] {
        let mut factors = [[0.0; CHUNK]; 2];
        let mut position = positions.start;
        while position < positions.end {
            let inside = position % self.block_tokens;
            let len = (self.block_tokens - inside).min(positions.end - position);
            let kept = (self.block)(position / self.block_tokens);
            for (factors, from) in factors.iter_mut().zip([kept.key_factors, kept.value_factors]) {
                // SAFETY: the caller's promise; there is one a token.
                let from = unsafe { std::slice::from_raw_parts(from.add(inside), len) };
                factors[position - chunk..][..len].copy_from_slice(from);
            }
            position += len;
        }
        factors
    }
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
/// nothing. Asks for the values of the same positions.
///
/// # Safety
/// As [`attend`].
unsafe fn scores<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let (dim, tokens) = (tile.head_dim, tile.block_tokens);
    // SAFETY: the caller's promise.
    let (keys, values) = unsafe { tile.blocks_of(positions.clone()) };
    // Blocks before the window may have been given to another sequence.
    let from = positions.start / tokens * tokens;
    let product = Product {
        a: &scratch.queries,
        a_stride: dim,
        blocks: keys,
        layout: Layout::Beside,
        block_tokens: tokens,
        rows: tile.rows(),
        depth: dim,
        columns: (positions.end - from).next_multiple_of(COLUMNS),
        add: false,
        ahead: &values,
    };
    multiply(level, product, &mut scratch.weights[from - chunk..], CHUNK);
}

/// From scores to the weights of each row, and the rows' corrections.
///
/// # Safety
/// As [`attend`].
unsafe fn weights<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let dim = tile.head_dim;
    // SAFETY: the caller's promise.
    let factors = E::SCALED.then(|| unsafe { tile.factors_of(chunk, positions.clone()) });
    for row in 0..tile.rows() {
        let seen = tile.visible(tile.start + row / tile.group);
        let inside = seen.start.clamp(chunk, positions.end) - chunk
            ..seen.end.clamp(chunk, positions.end) - chunk;
        let weights = scratch.weights[row * CHUNK..].first_chunk_mut().expect("a row of weights");
        if let Some([keys, _]) = &factors {
            scale(level, weights, keys);
        }
        step(
            level,
            weights,
            inside,
            &mut scratch.seen[row],
            &mut scratch.so_far[row * dim..][..dim],
        );
        if let Some([_, values]) = &factors {
            scale(level, weights, values);
        }
    }
}

/// Adds the weighted values of some positions of a chunk. Asks for the keys of the next chunk.
///
/// # Safety
/// As [`attend`].
unsafe fn add_values<E: Element>(
    level: Level,
    tile: &Tile<'_, E>,
    chunk: usize,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let dim = tile.head_dim;
    let next = positions.end..(tile.start + tile.tokens).min(chunk + 2 * CHUNK);
    // SAFETY: the caller's promise.
    let ((_, values), (next_keys, _)) =
        unsafe { (tile.blocks_of(positions.clone()), tile.blocks_of(next)) };
    let product = Product {
        a: &scratch.weights[positions.start - chunk..],
        a_stride: CHUNK,
        blocks: values,
        layout: Layout::Stacked { first: positions.start % tile.block_tokens },
        block_tokens: tile.block_tokens,
        rows: tile.rows(),
        depth: positions.len(),
        columns: dim,
        add: true,
        ahead: &next_keys,
    };
    multiply(level, product, &mut scratch.so_far, dim);
}
