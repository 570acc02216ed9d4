//! One instance: scheduler, continuous batching, chunked prefill, the OpenAI API over an engine; role
//! prefill, decode or both.
//!
//! Must never know routers.
#![forbid(unsafe_code)]
