//! Handing an instance's answer on: whole, or event by event as they come, never half an event,
//! and never a silent end.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue};
use plumb_protocol::ApiError;
use plumb_protocol::sse::{self, Framer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::warn;

use crate::decision::Route;
use crate::headers;
use crate::instances::Busy;
use crate::metrics::{InState, Meters};
use crate::upstream::{Answer, Stream};

const ROUTE: HeaderName = HeaderName::from_static("x-plumb-route");

/// What a stream holds until its last byte, or until its client leaves.
#[derive(Debug)]
pub(crate) struct Guards {
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) _busy: Busy,
    pub(crate) _state: InState,
    pub(crate) meters: Meters,
}

struct Relay {
    first: Option<Bytes>,
    framer: Framer,
    stream: Stream,
    idle_timeout: Duration,
    ended: bool,
    url: String,
    guards: Guards,
}

/// An answer that is here whole.
pub(crate) fn whole(answer: Answer, route: Option<&Route>) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers::for_client(&answer.headers);
    match route {
        Some(route) => drop(response.headers_mut().insert(ROUTE, route.header())),
        None => return unrouted(response, "nothing_left"),
    }
    response
}

/// An answer that no instance gave, and why.
pub(crate) fn unrouted(mut response: Response, reason: &'static str) -> Response {
    let route = HeaderValue::from_str(&format!("none;reason={reason}"));
    response.headers_mut().extend(route.ok().map(|route| (ROUTE, route)));
    response
}

/// A stream of events: the client's pace is the instance's, since a piece is asked for only when
/// the one before has been taken.
pub(crate) fn events(
    first: Bytes,
    framer: Framer,
    stream: Stream,
    route: &Route,
    guards: Guards,
    idle_timeout: Duration,
) -> Response {
    let status = stream.status;
    let mut headers = headers::for_client(&stream.headers);
    headers.insert(ROUTE, route.header());
    let url = route.decode.url.clone();
    let relay =
        Relay { first: Some(first), framer, stream, idle_timeout, ended: false, url, guards };
    let body = stream::unfold(relay, async |mut relay| {
        let piece = relay.next().await?;
        Some((Ok::<_, Infallible>(piece), relay))
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl Relay {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.ended {
            return None;
        }
        let why = loop {
            match timeout(self.idle_timeout, self.stream.next()).await {
                Ok(Ok(Some(piece))) => match self.framer.push(piece) {
                    Ok(events) if events.is_empty() => {}
                    Ok(events) => return Some(events),
                    Err(error) => break error.to_string(),
                },
                _ if self.framer.is_done() => {
                    self.ended = true;
                    let rest = Bytes::copy_from_slice(self.framer.held());
                    return Some(rest).filter(|rest| !rest.is_empty());
                }
                Ok(Ok(None)) => break "its stream ended before [DONE]".into(),
                Ok(Err(error)) => break error.to_string(),
                Err(_) => break "it fell silent".into(),
            }
        };
        self.ended = true;
        Some(self.error(&why))
    }

    /// The last event of a stream that cannot go on.
    fn error(&self, why: &str) -> Bytes {
        warn!(url = self.url, why, "a stream broke off");
        self.guards.meters.leg_failed("decode", "broke_off");
        let error = ApiError::bad_gateway(format!("The decode instance failed: {why}."));
        sse::event(&error.to_json()).into()
    }
}
