//! Asking instances whether they are well, and saying whether we are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use plumb_protocol::ApiError;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config::WhenPrefillFails;
use crate::front::Front;
use crate::instances::Instance;
use crate::upstream::{Ask, UpstreamError};

/// An instance that is down is asked sooner at first, then ever less often, up to this many times
/// the interval.
const MAX_BACKOFF: u32 = 4;

/// Checks each instance until the set is dropped.
pub(crate) fn start(front: &Front) -> JoinSet<()> {
    let (every, limit) = (front.options.health_interval, front.options.health_timeout);
    let mut checks = JoinSet::new();
    for instance in front.instances().cloned() {
        checks.spawn(watch(instance, every, limit));
    }
    checks
}

async fn watch(instance: Arc<Instance>, every: Duration, limit: Duration) {
    let mut backoff = every / 8;
    loop {
        check(&instance, limit).await;
        if instance.is_up() {
            backoff = every / 8;
            tokio::select! {
                () = sleep(every) => {}
                () = instance.went_down() => {}
            }
        } else {
            sleep(backoff).await;
            backoff = (backoff * 2).min(every * MAX_BACKOFF);
        }
    }
}

async fn check(instance: &Instance, limit: Duration) {
    let ask = Ask {
        method: Method::GET,
        path: "/health".into(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    match instance.upstream.ask(&ask, limit).await {
        Ok(answer) if answer.status.is_success() => instance.mark_up(),
        Ok(answer) => instance.mark_down(&format!("/health answers {}", answer.status)),
        Err(UpstreamError::Late) => instance.mark_late(),
        Err(error) => instance.mark_down(&error.to_string()),
    }
}

/// Whether a request could be served now: somebody decodes, and somebody computes the prompt.
pub(crate) fn can_serve(front: &Front) -> Result<(), ApiError> {
    let any_up = |instances: &[Arc<Instance>]| instances.iter().any(|i| i.is_up());
    if !any_up(&front.decode) {
        return Err(ApiError::unavailable("No decode instance is up.", 1));
    }
    let may_recompute = front.options.when_prefill_fails == WhenPrefillFails::Recompute;
    if !front.prefill.is_empty() && !may_recompute && !any_up(&front.prefill) {
        return Err(ApiError::unavailable("No prefill instance is up.", 1));
    }
    Ok(())
}
