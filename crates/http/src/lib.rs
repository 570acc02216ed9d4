//! What both servers share: listener, limits, drain, error bodies, the metrics page.
//!
//! Knows HTTP. Must never know prefill from decode.
#![forbid(unsafe_code)]
