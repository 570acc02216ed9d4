//! Wire types: OpenAI bodies (unknown fields kept), `kv_transfer_params`, the SSE codec, error bodies.
//!
//! Knows JSON and the shapes that travel. Must never know who sends them: no sockets, no engines,
//! no other crate of the house.
#![forbid(unsafe_code)]

pub mod openai;
