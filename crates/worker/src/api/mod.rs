//! The HTTP API: OpenAI's, with vLLM's extensions.

mod answer;
mod body;
mod chat;
mod completions;
mod events;
mod logprobs;
mod plain;
mod refused;
pub mod sampling;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use plumb_http::{Metrics as Page, with_fallbacks};

pub use events::unix_seconds;

use crate::instance::Instance;

/// Every path of an instance.
pub fn routes(instance: Arc<Instance>, page: Page) -> Router {
    let metrics = move || async move { page.page() };
    let app = Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/models", get(plain::models))
        .route("/v1/models/{*name}", get(plain::model))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/kv/leases/{id}", delete(plain::release))
        .route("/health", get(plain::health))
        .route("/metrics", get(metrics));
    with_fallbacks(app.with_state(instance))
}
