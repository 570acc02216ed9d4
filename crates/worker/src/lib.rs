//! One instance: scheduler, continuous batching, chunked prefill, the OpenAI API over an engine; role
//! prefill, decode or both.
//!
//! Must never know routers.
//!
//! # Design
//! - [`scheduler`] decides what the next step computes: a pure state machine over a pool of blocks.
//! - `driver` is the engine's thread: it owns engine and scheduler, takes commands over one channel,
//!   and sends each request its events. It never waits for HTTP or for a peer.
//! - `api` has one folder an endpoint: `validate` says what a request must be, `convert` makes it a
//!   generation, `reply` writes what the client reads. A request's answers live in a ticket; when
//!   its client leaves, the ticket is dropped, and the next thing that the engine's thread does is to
//!   give back its blocks. Nothing polls.
//! - `output` turns an answer's tokens into text: whole characters, and no part of a stop string.
//! - A prompt computed for another instance leaves its blocks under a lease; a prompt computed
//!   elsewhere is pulled by the `kv` crate's threads while the engine goes on with other sequences.
#![forbid(unsafe_code)]

mod api;
mod driver;
mod error;
mod explain;
mod fill;
mod generation;
mod instance;
mod machine;
mod memory;
mod metrics;
mod options;
mod output;
pub mod scheduler;
mod start;

pub use driver::LoadFailure;
pub use error::Error;
pub use instance::MemoryLayers;
pub use machine::leave_to_engine;
pub use options::{BLOCK_TOKENS, DEFAULT_CONTEXT, DEFAULT_KV_BYTES, Role, WorkerOptions};
pub use plumb_engine::KvType;
pub use start::Worker;
