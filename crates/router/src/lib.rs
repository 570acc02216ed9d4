//! The front door: OpenAI API, prefill/decode orchestration, policies, admission, health.
//!
//! Knows the instances by their URLs and the protocol between them. Must never know engines.
//!
//! The way of a request: [`api`] reads it within limits, [`admission`] lets it in, [`decision`]
//! says where it runs and why, [`legs`] runs the two legs, [`relay`] hands the decode instance's
//! answer on, event by event. [`failure`] says what follows when a leg fails, [`cancel`] what
//! follows when the client leaves. [`instances`] and [`health`] know who can be asked,
//! [`upstream`] how. All of a request hangs on one future: dropping it ends every part.
#![forbid(unsafe_code)]

mod admission;
mod api;
mod cancel;
mod config;
mod decision;
mod failure;
mod front;
mod headers;
mod health;
mod instances;
mod legs;
mod metrics;
mod policy;
mod relay;
mod upstream;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::{info, warn};

pub use config::{ConfigError, Options, PolicyName, Settings, WhenPrefillFails};
pub use front::Observed;

/// Serves on `listener` until `shutdown` ends, then drains: streams in flight finish within the
/// drain's time, and the leases of those that did not are given back.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    observed: Observed,
    shutdown: impl Future<Output = ()>,
) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "router listens");
    }
    let limits = options.limits.clone();
    let front = Arc::new(front::Front::new(options, observed));
    let checks = health::start(&front);
    let drained = plumb_http::serve(listener, api::app(front.clone()), &limits, shutdown).await;
    drop(checks);
    front.cancel.finish().await;
    match drained.cut_off {
        0 => info!("drained: nothing was cut off"),
        cut_off => warn!(cut_off, "the drain's time is over: requests were cut off"),
    }
}
