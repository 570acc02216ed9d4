//! Attention, shared out by tiles of query tokens and key/value heads.

use super::Step;
use crate::batch::Slice;
use crate::config::Config;
use crate::kernels::attention::{Element, Kept, TILE_ROWS, Tile, attend};
use crate::model::KvType;
use crate::plan::Floats;
use crate::threads::Member;

/// Query tokens of one slice that are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileOf {
    slice: u32,
    /// Index of the first token among the step's rows.
    row: u32,
    /// Position of the first token.
    start: u32,
    tokens: u32,
}

impl TileOf {
    /// Query tokens that a tile has at most.
    pub(crate) fn tokens(config: &Config) -> usize {
        (TILE_ROWS / config.group()).max(1)
    }

    /// The tiles of a slice whose first token is row `row`.
    pub(crate) fn cut(
        slice: &Slice<'_>,
        index: usize,
        row: usize,
        tokens: usize,
    ) -> impl Iterator<Item = Self> {
        let (start, len) = (slice.start, slice.tokens.len());
        (0..len).step_by(tokens).map(move |first| Self {
            slice: index as u32,
            row: (row + first) as u32,
            start: (start + first) as u32,
            tokens: tokens.min(len - first) as u32,
        })
    }
}

impl Step<'_> {
    pub(super) fn attend(&self, me: &Member<'_>, layer: usize, q: Floats, out: Floats) {
        let heads = self.model.config().kv_heads;
        let parts = self.tiles.len() * heads;
        me.share(parts, |part| {
            // The last tiles of a long prompt see most: they go first, so that none is left over.
            let part = parts - 1 - part;
            let (of, head) = (self.tiles[part / heads], part % heads);
            // SAFETY: each part has its own heads of its own rows.
            unsafe {
                match self.kv {
                    KvType::Int16 => self.tile::<i16>(me, layer, of, head, q, out),
                    KvType::Int8 => self.tile::<i8>(me, layer, of, head, q, out),
                }
            }
        });
    }

    /// # Safety
    /// Nobody else touches this head of these rows, and the team has met since keys were written.
    unsafe fn tile<E: Element>(
        &self,
        me: &Member<'_>,
        layer: usize,
        of: TileOf,
        head: usize,
        q: Floats,
        out: Floats,
    ) {
        let config = self.model.config();
        let (dim, group) = (config.head_dim, config.group());
        let blocks = self.batch[of.slice as usize].blocks;
        let block = |index: usize| {
            Kept::<E>::of(
                self.kept(blocks[index], layer),
                head,
                config.kv_heads,
                dim,
                self.block_tokens,
            )
        };
        let tile = Tile {
            start: of.start as usize,
            tokens: of.tokens as usize,
            group,
            head_dim: dim,
            window: config.windows[layer].map(|window| window as usize),
            block_tokens: self.block_tokens,
            block: &block,
        };
        let columns = |row: usize| {
            let first = (head * group + row % group) * dim;
            (of.row as usize + row / group, first..first + dim)
        };
        // SAFETY: nobody writes queries now; the part's outputs are its own.
        unsafe {
            let query = |row: usize| {
                let (row, columns) = columns(row);
                let at = self
                    .arena
                    .as_ptr()
                    .add(q.offset)
                    .cast::<f32>()
                    .add(row * q.width + columns.start);
                std::slice::from_raw_parts(at, dim)
            };
            let result = |row: usize| {
                let (row, columns) = columns(row);
                let at = self
                    .arena
                    .as_ptr()
                    .add(out.offset)
                    .cast::<f32>()
                    .add(row * out.width + columns.start);
                std::slice::from_raw_parts_mut(at, dim)
            };
            attend(self.level, &tile, config.attention_scale, query, self.own(me), result);
        }
    }
}
