//! Named memory that we own: every region of ours that matters is a memfd with a name, so that a
//! ledger taken from outside can call it by name.
//!
//! Knows descriptors, mappings and their names. Must never know what the bytes mean.
//!
//! # Design
//! - A [`Region`] is one mapping for its whole life: created (ours), opened (a peer's, read-only) or
//!   of a file (read-only, shared by all processes that map it). Dropping it unmaps it.
//! - `/proc/PID/maps` shows a memfd's own name, also in a peer that mapped it, so the name says
//!   whose it is: `plumb-kv-pool-prefill-9101`. `PR_SET_VMA_ANON_NAME` cannot help: it names
//!   anonymous memory only, and a memfd is not.
//! - Ours are sealed: nobody can shrink them (a reader would die of SIGBUS) or grow them, and whoever
//!   is handed the descriptor can map it for reading only (`F_SEAL_FUTURE_WRITE`).
//! - [`all`] lists the live regions of this process for its metrics.

mod error;
mod mapping;
mod registry;

pub use error::Error;
pub use mapping::Region;
pub use registry::{Entry, all};
