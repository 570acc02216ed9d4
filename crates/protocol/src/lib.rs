//! Wire types: OpenAI bodies (unknown fields kept), `kv_transfer_params`, the SSE codec, error bodies.
//!
//! Knows JSON and the shapes that travel. Must never know who sends them: no sockets, no engines,
//! no other crate of the house.
//!
//! - [`error`]: one error body for every answer that is not a success.
//! - [`body`]: a request's top level, its values left unparsed, so that what we do not know travels.
//! - [`legs`]: the two bodies that one disaggregated request becomes.
//! - [`kv_transfer`]: what a prefill instance hands over, opaque for a router and typed for a worker.
//! - [`openai`]: the bodies of the API, typed for a worker.
//! - [`sse`]: server-sent events, written and read.
#![forbid(unsafe_code)]

pub mod body;
pub mod error;
pub mod kv_transfer;
pub mod legs;
pub mod openai;
pub mod sse;

pub use error::ApiError;
