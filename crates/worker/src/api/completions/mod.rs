//! `/v1/completions`.

mod convert;
mod reply;
mod validate;
mod writer;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use plumb_http::{Refusal, request_id};
use plumb_protocol::openai::CompletionRequest;

use super::body;
use crate::instance::Instance;

/// Answers one completion request.
pub async fn handle(
    State(instance): State<Arc<Instance>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: CompletionRequest = body::read(&instance, body).await?;
    validate::check(&request, &instance)?;
    let id = format!("cmpl-{}", request_id(&headers));
    let settings = reply::Settings::of(&request, id.clone(), &instance);
    let (answer, writer) = convert::submit(request, id, &instance).await?;
    if settings.streams() {
        Ok(reply::stream(answer, writer, settings).await?)
    } else {
        Ok(reply::whole(answer, writer, settings).await?)
    }
}
