//! The two legs of a request, each ending in an answer or in a reason why not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use plumb_protocol::body::Body;
use plumb_protocol::sse::Framer;
use plumb_protocol::{kv_transfer, legs};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cancel::Lease;
use crate::front::Front;
use crate::instances::Instance;
use crate::upstream::{Answer, Ask, HalfClose, Stream, UpstreamError, Wire};

/// How long a prefill instance may take to notice that its asker has left.
const FAREWELL: Duration = Duration::from_millis(500);
/// Bytes of one event of a stream.
pub(crate) const MAX_EVENT: usize = 16 << 20;

/// A client's request, as every try of it needs it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) path: &'static str,
    /// For the instances: the same on both legs.
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    pub(crate) client: &'a Body<'a>,
}

/// Why a leg has no answer for the client.
#[derive(Debug)]
pub(crate) enum LegError {
    /// There is no whole answer.
    Upstream(UpstreamError),
    /// There is one, and it says that the instance could not.
    Failed(Answer),
}

/// What a prefill leg gave.
#[derive(Debug)]
pub(crate) enum Prefilled {
    /// Blocks wait, under a lease.
    Handed(Box<RawValue>, Lease),
    /// The prompt is computed, but nothing is kept.
    Nothing,
    /// The request itself is wrong: this is its answer.
    Refused(Answer),
}

/// What a decode leg gave.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// A stream of events, the first of them already here.
    Events { first: Bytes, framer: Framer, stream: Stream },
    /// A whole answer.
    Whole(Answer),
}

impl From<UpstreamError> for LegError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

/// Runs the prefill leg in a task of its own: when this future is dropped, the task takes leave of
/// the instance in an orderly way. It stops sending, so that the instance ends the request; and
/// if the answer was under way already, it reads it and gives the lease back.
pub(crate) async fn prefill(
    front: &Arc<Front>,
    instance: &Arc<Instance>,
    call: &Call<'_>,
) -> Result<Prefilled, LegError> {
    let ask = call.ask(legs::prefill(call.client).into());
    let (mut sender, answer) = oneshot::channel();
    let work = {
        let (front, instance) = (front.clone(), instance.clone());
        async move {
            let _busy = instance.enter();
            let _state = front.meters.enter("prefill");
            let outcome = tokio::select! {
                outcome = instance.upstream.connect(front.options.connect_timeout) => outcome,
                () = sender.closed() => return,
            };
            let wire = match outcome {
                Ok(wire) => wire,
                Err(error) => return drop(sender.send(Err(LegError::from(error)))),
            };
            let half_close = wire.half_close();
            let mut exchange = std::pin::pin!(prefill_exchange(&front, &instance, wire, ask));
            let outcome = tokio::select! {
                outcome = &mut exchange => Some(outcome),
                () = sender.closed() => farewell(&half_close, exchange).await,
            };
            // Where nobody takes it any more, dropping it gives the lease back.
            if let Some(outcome) = outcome {
                drop(sender.send(outcome));
            }
        }
    };
    front.cancel.spawn(work);
    answer.await.unwrap_or(Err(LegError::Upstream(UpstreamError::Died("the leg ended".into()))))
}

async fn farewell<T>(half_close: &HalfClose, exchange: impl Future<Output = T>) -> Option<T> {
    half_close.close();
    timeout(FAREWELL, exchange).await.ok()
}

async fn prefill_exchange(
    front: &Arc<Front>,
    instance: &Arc<Instance>,
    wire: Wire,
    ask: Ask,
) -> Result<Prefilled, LegError> {
    let options = &front.options;
    let exchange =
        async { instance.upstream.send(wire, &ask, options.connect_timeout).await?.whole().await };
    let answer = timeout(options.prefill_timeout, exchange).await;
    let answer = answer.unwrap_or(Err(UpstreamError::Late))?;
    if is_failure(answer.status) {
        return Err(LegError::Failed(answer));
    }
    if !answer.status.is_success() {
        return Ok(Prefilled::Refused(answer));
    }
    Ok(handed(front, instance, &answer, ask.headers).unwrap_or(Prefilled::Nothing))
}

/// What the answer hands over, under a lease that is given back unless decode takes it.
fn handed(
    front: &Front,
    instance: &Arc<Instance>,
    answer: &Answer,
    headers: HeaderMap,
) -> Option<Prefilled> {
    let body = Body::parse(&answer.body).ok()?;
    let params = kv_transfer::of_answer(&body)?;
    let fields = Body::parse(params.get().as_bytes()).ok()?;
    if let Some(engine) = fields.string("remote_engine_id")
        && instance.saw_engine(&engine)
    {
        front.meters.restarted();
    }
    let id = fields.string("remote_request_id").unwrap_or_default();
    let lease = Lease::new(&front.cancel, instance.clone(), id, headers);
    Some(Prefilled::Handed(params.to_owned(), lease))
}

/// Runs the decode leg up to its first event, or to the end of an answer that is no stream.
pub(crate) async fn decode(
    front: &Front,
    instance: &Instance,
    call: &Call<'_>,
    params: Option<&RawValue>,
) -> Result<Decoded, LegError> {
    let options = &front.options;
    let body =
        params.map_or_else(|| call.raw.clone(), |params| legs::decode(call.client, params).into());
    let wire = instance.upstream.connect(options.connect_timeout).await?;
    let first = async {
        let ask = call.ask(body);
        let stream = instance.upstream.send(wire, &ask, options.connect_timeout).await?;
        if stream.status.is_success() && is_event_stream(&stream.headers) {
            return first_event(stream).await;
        }
        let answer = stream.whole().await?;
        if is_failure(answer.status) {
            return Err(LegError::Failed(answer));
        }
        Ok(Decoded::Whole(answer))
    };
    let late = Err(LegError::Upstream(UpstreamError::Late));
    timeout(options.first_byte_timeout, first).await.unwrap_or(late)
}

async fn first_event(mut stream: Stream) -> Result<Decoded, LegError> {
    let mut framer = Framer::new(MAX_EVENT);
    loop {
        let Some(piece) = stream.next().await? else {
            let ended = "the stream ended before its first event";
            return Err(LegError::Upstream(UpstreamError::Died(ended.into())));
        };
        let first = framer.push(piece).map_err(|_| UpstreamError::TooLarge)?;
        if let Some(answer) = failed_at_once(&first) {
            return Err(LegError::Failed(answer));
        }
        if !first.is_empty() {
            return Ok(Decoded::Events { first, framer, stream });
        }
    }
}

/// A stream whose first event is a server's error: the same as an answer with that status.
fn failed_at_once(first: &[u8]) -> Option<Answer> {
    let data = first.strip_prefix(b"data: ").filter(|data| data.starts_with(b"{\"error\""))?;
    let data = &data[..data.iter().position(|&b| b == b'\n')?];
    let body = Body::parse(data).ok()?;
    let error = Body::parse(body.get("error")?.get().as_bytes()).ok()?;
    let status: u16 = error.get("code")?.get().parse().ok()?;
    let status = StatusCode::from_u16(status).ok().filter(|&status| is_failure(status))?;
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
    Some(Answer { status, headers, body: Bytes::copy_from_slice(data) })
}

impl Call<'_> {
    fn ask(&self, body: Bytes) -> Ask {
        Ask {
            method: Method::POST,
            path: self.path.to_owned(),
            headers: self.headers.clone(),
            body,
        }
    }
}

/// Whether another instance might do better: the others are the request's own fault.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream")
    })
}
