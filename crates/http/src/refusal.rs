//! Errors as answers, in OpenAI's shape, and the answers for what does not exist.

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use plumb_protocol::ApiError;

/// An [`ApiError`] that a handler returns as its answer.
#[derive(Debug)]
pub struct Refusal(pub ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], error.to_json()).into_response();
        if let Some(seconds) = error.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Gives unknown paths a 404 and unknown methods a 405 in OpenAI's shape.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(app: Router<S>) -> Router<S> {
    app.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

async fn not_found(method: Method, uri: Uri) -> Refusal {
    Refusal(ApiError::not_found(format!("There is no {method} {} here.", uri.path())))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal(ApiError::new(405, format!("{} does not take {method}.", uri.path())))
}
