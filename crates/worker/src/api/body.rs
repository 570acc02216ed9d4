//! From a body to a request, within the listener's bounds.

use axum::body::Body;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{RequestBody, parse};

use crate::instance::Instance;

/// Reads a body as a `T`.
///
/// # Errors
/// What the client should be told.
pub async fn read<T>(instance: &Instance, body: Body) -> Result<T, ApiError>
where
    T: RequestBody + Send + 'static,
{
    let bytes = instance.bodies.read(body).await?;
    if bytes.len() <= LARGE {
        return parsed(&bytes);
    }
    let _turn = instance.large_bodies.acquire().await;
    off_thread(move || parsed(&bytes)).await
}

/// Reading a body may take twenty times its bytes in memory, and a large one a while: those are read
/// one at a time, beside the streams.
const LARGE: usize = 256 << 10;

fn parsed<T: RequestBody>(bytes: &[u8]) -> Result<T, ApiError> {
    parse(bytes).map_err(|bad| ApiError { param: bad.param, ..ApiError::bad_request(bad.message) })
}

/// # Errors
/// 404 for a model that this instance does not serve.
pub fn check_model(instance: &Instance, asked: Option<&str>) -> Result<(), ApiError> {
    let name = &instance.model_name;
    match asked {
        None | Some("") => Ok(()),
        Some(asked) if asked == name => Ok(()),
        Some(asked) => {
            let message = format!("The model `{asked}` does not exist. Valid aliases: {name}.");
            Err(ApiError::not_found(message).param("model"))
        }
    }
}

/// # Errors
/// 400 with the numbers, in vLLM's words, for a prompt that leaves no room for an answer.
pub fn check_length(instance: &Instance, tokens: usize) -> Result<(), ApiError> {
    if tokens == 0 {
        return Err(ApiError::bad_request("The prompt has no tokens.").param("prompt"));
    }
    if tokens < instance.context { Ok(()) } else { Err(too_long(instance, tokens)) }
}

/// For a text, before the time is spent on its tokens: no token stands for more than the longest.
///
/// # Errors
/// As [`check_length`].
pub fn check_text(instance: &Instance, text: &str) -> Result<(), ApiError> {
    let least = text.len().div_ceil(instance.tokenizer.longest_token());
    if least < instance.context { Ok(()) } else { Err(too_long(instance, least)) }
}

fn too_long(instance: &Instance, tokens: usize) -> ApiError {
    let context = instance.context;
    let message = format!(
        "This model's maximum context length is {context} tokens. However, your prompt contains at \
         least {tokens} input tokens, which exceeds this limit even without any output tokens. \
         Please reduce the length of the input prompt. (parameter=input_tokens, value={tokens})"
    );
    ApiError::bad_request(message).param("input_tokens")
}

/// Runs what may take long (a big prompt takes tens of milliseconds to tokenize) where it does not
/// hold up other streams.
///
/// # Errors
/// The work's own, or 500 if it panicked.
pub async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ApiError::internal(format!("reading the prompt failed: {e}")))?
}
