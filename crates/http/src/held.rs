//! A body that holds something until it is dropped: at its end, or when its client leaves.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Error;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

struct Held<T> {
    body: Body,
    _thing: T,
}

/// The same answer; `thing` is dropped with its body.
pub(crate) fn hold<T: Send + Unpin + 'static>(answer: Response, thing: T) -> Response {
    answer.map(|body| Body::new(Held { body, _thing: thing }))
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
