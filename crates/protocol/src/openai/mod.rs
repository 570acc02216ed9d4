//! Bodies of the OpenAI API as vLLM 0.32 speaks it.
//!
//! Requests keep the fields that they do not name (`extra`); answers carry every key of the recorded
//! ones, nulls included, so that clients written for vLLM read them unchanged.

mod chat;
mod completion;
mod logprobs;
mod models;
mod parse;
mod sampling;
mod tokens;

pub use chat::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatDelta, ChatMessage, ChatRequest, ChatResponse,
    FullUsage,
};
pub use completion::{
    CompletionChoice, CompletionChunk, CompletionChunkChoice, CompletionRequest,
    CompletionResponse, Prompt,
};
pub use logprobs::{ChatLogprob, ChatLogprobs, CompletionLogprobs, TopLogprob};
pub use models::{Model, ModelList};
pub use parse::{BadBody, RequestBody, parse};
pub use sampling::{OneOrMany, SamplingFields, StreamOptions, Usage};
pub use tokens::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use serde_json::{Map, Value};

/// Fields of a request that no type here names, kept as they came.
pub type Extra = Map<String, Value>;
