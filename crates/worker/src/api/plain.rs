//! Paths that need no engine: models, health, leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use plumb_http::Refusal;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{Model, ModelList};

use super::body::check_model;
use super::events;
use crate::instance::Instance;

/// `GET /v1/models`.
pub async fn models(State(instance): State<Arc<Instance>>) -> Result<Response, Refusal> {
    Ok(events::json(&ModelList { object: "list".into(), data: vec![the_model(&instance)] })?)
}

/// `GET /v1/models/{name}`.
pub async fn model(
    State(instance): State<Arc<Instance>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    check_model(&instance, Some(&name))?;
    Ok(events::json(&the_model(&instance))?)
}

fn the_model(instance: &Instance) -> Model {
    Model {
        id: instance.model_name.clone(),
        object: "model".into(),
        created: instance.created,
        owned_by: "plumb".into(),
        root: Some(instance.model_path.clone()),
        parent: None,
        max_model_len: Some(instance.context),
        permission: Vec::new(),
    }
}

/// `GET /health`: 200 while a request can be served.
pub async fn health(State(instance): State<Arc<Instance>>) -> Result<StatusCode, Refusal> {
    if instance.alive.load(Ordering::Acquire) {
        Ok(StatusCode::OK)
    } else {
        Err(ApiError::unavailable("The engine has stopped.", 1).into())
    }
}

/// `DELETE /kv/leases/{id}`: nobody is going to pull these blocks.
pub async fn release(
    State(instance): State<Arc<Instance>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    match instance.leases.release(&id) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // Named, so that a router knows it from a server without this path.
        Err(error) => Err(ApiError::not_found(error.to_string()).param("remote_request_id").into()),
    }
}
