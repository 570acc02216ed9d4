//! `/v1/chat/completions`.

mod convert;
mod reply;
mod validate;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use plumb_http::{Refusal, request_id};
use plumb_protocol::openai::ChatRequest;

use super::body;
use crate::instance::Instance;

pub(super) use convert::{Chat, render};
pub(super) use validate::messages as check_messages;

/// Answers one chat request.
pub async fn handle(
    State(instance): State<Arc<Instance>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: ChatRequest = body::read(&instance, body).await?;
    validate::check(&request, &instance)?;
    let id = format!("chatcmpl-{}", request_id(&headers));
    let settings = reply::Settings::of(&request, id, &instance);
    let answer = convert::submit(request, settings.id(), &instance).await?;
    if settings.streams() {
        Ok(reply::stream(answer, settings, instance).await?)
    } else {
        Ok(reply::whole(answer, &settings, &instance).await?)
    }
}
