//! Attention over the paged KV cache, with an online softmax (Milakov and Gimelshein,
//! <https://arxiv.org/abs/1805.02867>).
//!
//! A tile is some query tokens times all query heads of one key/value head: it reads every key and
//! value once for all of its rows. Keys are taken in chunks of [`CHUNK`] positions, cut at
//! multiples of `CHUNK` in the sequence, and a row's sums run over positions in order. A row's bits
//! are thus a function of its query and of the keys it sees, whatever else is in the tile.
//!
//! Products are of integers, whose sums are exact: twice as many a cycle as of floats, and as precise
//! as halves are (`narrow`). Keys and values are kept in 16 bits or in bytes, with a factor a token and
//! head; queries and weights are made integers of 16 bits when they are used, weights together with the
//! factors of the values, by the greatest of the positions that their row sees in a chunk. The two are
//! the same but for how they load ([`Element`]).
//!
//! Within a block, keys and values lie so (`kept`) that products of many queries with K and of many
//! weights with V read whole vectors of pairs, and nothing is ever summed across lanes.

mod kept;
mod narrow;
mod prefetch;
mod product;
mod scratch;
mod softmax;
mod tile;

pub(crate) use kept::Kept;
pub(crate) use narrow::narrow;
pub(crate) use product::Element;
#[cfg(target_arch = "x86_64")]
pub(crate) use product::add_word_products;
pub(crate) use scratch::Scratch;
pub(crate) use tile::{Tile, attend};

/// Positions a chunk: one correction of the running sums each.
pub(crate) const CHUNK: usize = 64;

/// Products whose sum is exact; it is rounded to a float then.
const SECTION: usize = 64;

/// Rows of a tile are at most this many; more would leave the second-level cache.
/// A multiple of the rows that a product takes at a time.
pub(crate) const TILE_ROWS: usize = 60;
