//! Attention over the paged KV cache, with an online softmax (Milakov and Gimelshein,
//! <https://arxiv.org/abs/1805.02867>).
//!
//! A tile is some query tokens times all query heads of one key/value head: it reads every key and
//! value once for all of its rows. Keys are taken in chunks of [`CHUNK`] positions, cut at
//! multiples of `CHUNK` in the sequence, and a row's sums run over positions in order. A row's bits
//! are thus a function of its query and of the keys it sees, whatever else is in the tile.
//!
//! Within a block, a layer's K lies as `[kv_head][head_dim][token]` and its V behind it as
//! `[kv_head][token][head_dim]`: products of many queries with K and of many weights with V then read
//! whole vectors, and nothing is ever summed across lanes. Both are halves, or bytes with a factor a
//! token and head (`kept`); factors are applied to scores and to weights, so that the products are the
//! same but for how they load ([`Element`]).

mod kept;
mod narrow;
mod prefetch;
mod product;
mod scratch;
mod softmax;
mod tile;

pub(crate) use kept::Kept;
pub(crate) use product::Element;
pub(crate) use scratch::Scratch;
pub(crate) use tile::{Tile, attend};

/// Positions a chunk: one correction of the running sums each.
pub(crate) const CHUNK: usize = 64;

/// Rows of a tile are at most this many; more would leave the second-level cache.
/// A multiple of the rows that a product takes at a time.
pub(crate) const TILE_ROWS: usize = 60;
