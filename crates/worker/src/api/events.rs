//! Bodies: one JSON, or a stream of server-sent events.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use plumb_protocol::ApiError;
use plumb_protocol::sse;
use serde::Serialize;

use super::answer::{Answer, Update};

/// A body of JSON.
///
/// # Errors
/// 500 if it cannot be written, which no type here can cause.
pub fn json(body: &impl Serialize) -> Result<Response, ApiError> {
    let text = serde_json::to_string(body)
        .map_err(|e| ApiError::internal(format!("the answer cannot be written: {e}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// One event.
pub fn event(data: &impl Serialize) -> String {
    // The types of this API have string keys and finite numbers only.
    serde_json::to_string(data).map(|text| sse::event(&text)).unwrap_or_default()
}

/// A stream of `head`, then `each` update of `answer`, then its `tail` and `[DONE]`. A failure on
/// the way is an error event; a client that leaves drops `answer`, which stops the computation.
pub fn stream(
    head: String,
    answer: Answer,
    each: impl FnMut(Update) -> String + Send + 'static,
    tail: impl FnOnce(&Answer) -> String + Send + 'static,
) -> Response {
    let state = Streaming { head: Some(head), answer, each, tail: Some(tail) };
    let pieces = stream::unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), state))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct Streaming<E, T> {
    head: Option<String>,
    answer: Answer,
    each: E,
    /// None once the last event was made.
    tail: Option<T>,
}

impl<E: FnMut(Update) -> String, T: FnOnce(&Answer) -> String> Streaming<E, T> {
    /// The next piece of the body that is not empty.
    async fn next(&mut self) -> Option<String> {
        if let Some(head) = self.head.take().filter(|head| !head.is_empty()) {
            return Some(head);
        }
        while self.tail.is_some() {
            let piece = match self.answer.next().await {
                Some(Ok(update)) => (self.each)(update),
                Some(Err(error)) => {
                    self.tail = None;
                    sse::event(&error.to_json()) + &sse::event("[DONE]")
                }
                None => {
                    let tail = self.tail.take()?;
                    tail(&self.answer) + &sse::event("[DONE]")
                }
            };
            if !piece.is_empty() {
                return Some(piece);
            }
        }
        None
    }
}

/// Now, in seconds since 1970.
pub fn unix_seconds() -> u64 {
    use std::time::SystemTime;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
