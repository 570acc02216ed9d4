//! What follows when a leg fails: another instance, decode on its own, or an error that says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use plumb_http::{REQUEST_ID, Refusal};
use plumb_protocol::ApiError;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use crate::cancel::Lease;
use crate::config::WhenPrefillFails;
use crate::decision::{self, Route};
use crate::front::Front;
use crate::instances::{Instance, Role};
use crate::legs::{self, Call, Decoded, LegError, Prefilled};
use crate::relay::{self, Guards};
use crate::upstream::{Answer, UpstreamError};

/// What was tried in vain for one request.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    prefill: Vec<Arc<Instance>>,
    decode: Vec<Arc<Instance>>,
    local: Option<&'static str>,
    /// Answered that it could not, with blocks to pull: it may do better without.
    recompute: Option<Arc<Instance>>,
    answer: Option<Answer>,
    why: Vec<String>,
}

/// One request on its way through its tries.
struct Journey<'a> {
    front: &'a Arc<Front>,
    call: &'a Call<'a>,
    tried: Tried,
    handed: Option<(Arc<Instance>, Box<RawValue>, Lease)>,
    started: Instant,
    waited: Duration,
}

/// Serves one request: tries until there is an answer, or nothing is left to try.
pub(crate) async fn serve(
    front: &Arc<Front>,
    call: &Call<'_>,
    place: OwnedSemaphorePermit,
    started: Instant,
) -> Response {
    let whole = decision::must_be_whole(call.client);
    let mut journey = Journey {
        front,
        call,
        tried: Tried::default(),
        handed: None,
        started,
        waited: Duration::ZERO,
    };
    for _ in 0..front.options.max_attempts {
        let route = match decision::decide(front, &call.raw, whole, &journey.tried) {
            Ok(route) => route,
            Err(error) => return journey.give_up(error),
        };
        if let Some((route, decoded)) = journey.attempt(route).await {
            return journey.answer(&route, decoded, place);
        }
    }
    let error = journey.tried.error("Every try failed.");
    journey.give_up(error)
}

impl Journey<'_> {
    /// One try along `route`; none if it failed. The route may become a local one on the way.
    async fn attempt(&mut self, mut route: Route) -> Option<(Route, Decoded)> {
        if route.prefill.is_none() {
            self.handed = None;
        } else if let Some((prefill, ..)) = &self.handed {
            route.prefill = Some(prefill.clone());
        } else if let Some(refused) = self.run_prefill(&mut route).await? {
            return Some((route, refused));
        }
        let params = self.handed.as_ref().map(|(_, params, _)| &**params);
        let (_busy, _state) = (route.decode.enter(), self.front.meters.enter("decode"));
        let start = Instant::now();
        let decoded = legs::decode(self.front, &route.decode, self.call, params).await;
        self.waited += start.elapsed();
        match decoded {
            Ok(decoded) => {
                self.front.meters.leg("decode", start.elapsed());
                self.settle_lease(&decoded);
                Some((route, decoded))
            }
            Err(error) => {
                let reached = !matches!(error, LegError::Upstream(UpstreamError::Unreached(_)));
                let had_blocks = self.handed.is_some();
                if reached {
                    // It may have pulled, or not: the blocks are asked back, and never used again.
                    self.handed = None;
                }
                if had_blocks && matches!(error, LegError::Failed(_)) {
                    self.tried.recompute = Some(route.decode.clone());
                }
                self.tried.failed(self.front, &route.decode, error);
                None
            }
        }
    }

    /// The prefill leg. Some answer ends the request; none goes on to decode.
    async fn run_prefill(&mut self, route: &mut Route) -> Option<Option<Decoded>> {
        let prefill = route.prefill.clone()?;
        let start = Instant::now();
        let prefilled = legs::prefill(self.front, &prefill, self.call).await;
        self.waited += start.elapsed();
        match prefilled {
            Ok(Prefilled::Handed(params, lease)) => {
                self.front.meters.leg("prefill", start.elapsed());
                self.handed = Some((prefill, params, lease));
                Some(None)
            }
            Ok(Prefilled::Nothing) => {
                route.prefill = None;
                route.reason = "nothing_kept";
                Some(None)
            }
            Ok(Prefilled::Refused(answer)) => Some(Some(Decoded::Whole(answer))),
            Err(error) => {
                self.tried.failed(self.front, &prefill, error);
                None
            }
        }
    }

    fn settle_lease(&mut self, decoded: &Decoded) {
        let Some((.., lease)) = self.handed.take() else { return };
        // A request that decode refused was not pulled for.
        let refused = matches!(decoded, Decoded::Whole(answer) if !answer.status.is_success());
        if !refused {
            lease.taken();
        }
    }

    fn answer(self, route: &Route, decoded: Decoded, place: OwnedSemaphorePermit) -> Response {
        let meters = &self.front.meters;
        let total = self.started.elapsed();
        meters.routed(route.name(), route.reason);
        meters.first_byte(total, self.waited);
        let status = match &decoded {
            Decoded::Whole(answer) => answer.status,
            Decoded::Events { stream, .. } => stream.status,
        };
        self.log(&route.header(), status);
        match decoded {
            Decoded::Whole(answer) => {
                meters.answered(answer.status.as_u16());
                relay::whole(answer, Some(route))
            }
            Decoded::Events { first, framer, stream } => {
                meters.answered(stream.status.as_u16());
                let guards = Guards {
                    _place: place,
                    _busy: route.decode.enter(),
                    _state: meters.enter("decode"),
                    meters: meters.clone(),
                };
                relay::events(first, framer, stream, route, guards, self.front.options.idle_timeout)
            }
        }
    }

    /// Which way this request went, why, and how long its answer took to begin.
    fn log(&self, route: &HeaderValue, status: StatusCode) {
        let request = self.call.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let (route, status) = (route.to_str().unwrap_or_default(), status.as_u16());
        let seconds = self.started.elapsed().as_secs_f64();
        info!(request, route, status, seconds, "answers");
    }

    /// The last answer of an instance if there was one, else the error.
    fn give_up(self, error: ApiError) -> Response {
        let status = self.tried.answer.as_ref().map(|answer| answer.status);
        let status = status.or(StatusCode::from_u16(error.status).ok()).unwrap_or_default();
        self.log(&HeaderValue::from_static("none;reason=nothing_left"), status);
        let meters = &self.front.meters;
        meters.routed("none", "nothing_left");
        match self.tried.answer {
            Some(answer) => {
                meters.answered(answer.status.as_u16());
                relay::whole(answer, None)
            }
            None => {
                meters.answered(error.status);
                relay::unrouted(Refusal(error).into_response(), "nothing_left")
            }
        }
    }
}

impl Tried {
    pub(crate) fn is_empty(&self) -> bool {
        self.why.is_empty()
    }

    pub(crate) fn prefill_failed(&self, instance: &Arc<Instance>) -> bool {
        self.prefill.iter().any(|i| Arc::ptr_eq(i, instance))
    }

    pub(crate) fn decode_failed(&self, instance: &Arc<Instance>) -> bool {
        self.decode.iter().any(|i| Arc::ptr_eq(i, instance))
    }

    /// The decode instance that may be asked once more, to compute the prompt itself.
    pub(crate) fn may_recompute(&self) -> Option<Arc<Instance>> {
        self.recompute.clone().filter(|i| i.is_up() && self.local.is_some())
    }

    /// Why nothing is to be transferred any more.
    pub(crate) fn local_reason(&self) -> Option<&'static str> {
        self.local
    }

    /// `what`, and what was tried: 503 where nobody could be asked, 502 where somebody failed.
    pub(crate) fn error(&self, what: &str) -> ApiError {
        if self.why.is_empty() {
            return ApiError::unavailable(what, 1);
        }
        ApiError::bad_gateway(format!("{what} Tried: {}.", self.why.join("; ")))
    }

    /// A leg failed: told, counted, and that instance is not asked again.
    pub(crate) fn failed(&mut self, front: &Front, instance: &Arc<Instance>, error: LegError) {
        let leg = instance.role.name();
        let (kind, why) = match &error {
            LegError::Upstream(error @ UpstreamError::Unreached(why)) => {
                instance.mark_down(why);
                ("unreached", error.to_string())
            }
            LegError::Upstream(error @ UpstreamError::Late) => ("late", error.to_string()),
            LegError::Upstream(error) => ("died", error.to_string()),
            LegError::Failed(answer) => ("answered", format!("answered {}", answer.status)),
        };
        warn!(url = instance.url, leg, why, "a leg failed");
        front.meters.leg_failed(leg, kind);
        front.meters.retried(leg);
        self.add(instance, error, why, front.options.when_prefill_fails);
    }

    fn add(
        &mut self,
        instance: &Arc<Instance>,
        error: LegError,
        why: String,
        policy: WhenPrefillFails,
    ) {
        self.why.push(format!("{} {why}", instance.url));
        if let LegError::Failed(answer) = error {
            self.answer = Some(answer);
        }
        if instance.role == Role::Prefill {
            self.prefill.push(instance.clone());
            return;
        }
        // The second failure of the same one was its own: it had nothing to pull.
        if self.decode_failed(instance) {
            self.recompute = None;
        }
        if self.recompute.is_some() && policy == WhenPrefillFails::Recompute {
            self.local = Some("transfer_failed");
        }
        self.decode.push(instance.clone());
    }
}
