//! The front door: OpenAI API, prefill/decode orchestration, policies, admission, health.
//!
//! Must never know engines.
#![forbid(unsafe_code)]
