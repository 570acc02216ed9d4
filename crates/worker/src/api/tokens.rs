//! `/tokenize` and `/detokenize`, vLLM's extensions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use plumb_http::Refusal;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{
    DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse,
};
use plumb_text::Special;

use super::body::{check_model, off_thread, read};
use super::{chat, events, logprobs};
use crate::instance::Instance;

/// `POST /tokenize`: a text's or a chat's tokens.
pub async fn tokenize(
    State(instance): State<Arc<Instance>>,
    body: Body,
) -> Result<Response, Refusal> {
    let request: TokenizeRequest = read(&instance, body).await?;
    check_model(&instance, request.model.as_deref())?;
    let wants_texts = request.return_token_strs == Some(true);
    let of = Arc::clone(&instance);
    let tokens = off_thread(move || tokens(&of, &request)).await?;
    let texts = || tokens.iter().map(|&id| logprobs::text(&instance.tokenizer, id)).collect();
    Ok(events::json(&TokenizeResponse {
        count: tokens.len(),
        max_model_len: instance.context,
        token_strs: wants_texts.then(texts),
        tokens,
    })?)
}

fn tokens(instance: &Instance, request: &TokenizeRequest) -> Result<Vec<u32>, ApiError> {
    if let Some(prompt) = &request.prompt {
        let add = request.add_special_tokens != Some(false);
        return Ok(instance.tokenizer.encode(prompt, Special { add, parse: true }));
    }
    let Some(messages) = &request.messages else {
        let message = "Either `prompt` or `messages` is required.";
        return Err(ApiError::bad_request(message).param("prompt"));
    };
    chat::check_messages(messages)?;
    let chat = chat::Chat {
        messages,
        tools: request.tools.as_deref(),
        add_generation_prompt: request.add_generation_prompt != Some(false),
        kwargs: request.chat_template_kwargs.clone().unwrap_or_default(),
        add_special: request.add_special_tokens == Some(true),
    };
    chat::render(instance, &chat)
}

/// `POST /detokenize`: tokens' text.
pub async fn detokenize(
    State(instance): State<Arc<Instance>>,
    body: Body,
) -> Result<Response, Refusal> {
    let request: DetokenizeRequest = read(&instance, body).await?;
    check_model(&instance, request.model.as_deref())?;
    let vocab = instance.tokenizer.len();
    if let Some(id) = request.tokens.iter().find(|&&id| id as usize >= vocab) {
        let message = format!("Token {id} is outside the vocabulary of {vocab}.");
        return Err(ApiError::bad_request(message).param("tokens").into());
    }
    let prompt = instance.tokenizer.decode(&request.tokens, true);
    Ok(events::json(&DetokenizeResponse { prompt })?)
}
