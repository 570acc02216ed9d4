//! What both servers share: listener, limits, drain, error bodies, the metrics page.
//!
//! Knows HTTP. Must never know prefill from decode.
//!
//! - [`serve`] runs an application on a listener until it is told to stop, then drains.
//! - [`Limits`] bounds what strangers can make us hold: connections, bytes, time.
//! - [`BodyReader`] reads a request's body within them.
//! - [`Refusal`] is an [`ApiError`](plumb_protocol::ApiError) as an answer; [`with_fallbacks`] gives
//!   unknown paths and methods one.
//! - [`Metrics`] is the page at `/metrics`.
//!
//! A client that leaves drops its handler's future, and with it everything the handler waits for:
//! cancellation is a matter of `Drop`, not of polling a flag.
#![forbid(unsafe_code)]

mod body;
mod drain;
mod held;
mod limits;
mod metrics;
mod refusal;
mod request_id;
mod seats;
mod server;

pub use body::{BodyReader, ReadBody};
pub use limits::Limits;
pub use metrics::{Metrics, latency_buckets};
pub use refusal::{Refusal, with_fallbacks};
pub use request_id::{REQUEST_ID, request_id};
pub use server::{Drained, bind, serve};
