//! KV blocks: pool, prefix index, leases, and their transfer between processes (shared memory, TCP).
//!
//! Knows blocks of bytes that stand for tokens. Must never know models or HTTP.
//!
//! # Design
//! - [`Pool`]: one region, mapped once, cut into equal blocks. A [`Block`] is a counted reference;
//!   the last one dropped returns the block, so that no error path can strand one. A full block may
//!   be published under its [`ChainHash`] (of all tokens up to its end): it then stays findable
//!   after its last reference is gone, until its room is needed.
//! - A block that somebody may still write has one owner, who knows it; the pool does not check
//!   writes. [`Pool::make_unique`] is the way from a shared block to one's own copy.
//! - [`Leases`]: blocks kept for a peer under a name that cannot be guessed, for a bounded time.
//! - [`transfer`]: [`transfer::Server`] serves the blocks of live leases, [`transfer::Puller`] pulls
//!   them into a pool of its own. Both work on threads of their own: no engine's step waits for them.

mod block;
mod chain;
mod fill;
mod identity;
mod lease;
mod pool;
mod request_id;
mod shape;
mod state;
pub mod transfer;

pub use block::{Block, BlockId};
pub use chain::ChainHash;
pub use fill::Fill;
pub use identity::{Identity, Mismatch};
pub use lease::{DEFAULT_TTL, GrantError, LeaseCounts, Leases, NoLease};
pub use pool::{Error, OutOfBlocks, Pool, PoolView};
pub use request_id::{MAX_REQUEST_ID, remote_request_id};
pub use shape::{BlockShape, LayerShape, ShapeError};
pub use state::Counts;
pub use transfer::Pulled;
