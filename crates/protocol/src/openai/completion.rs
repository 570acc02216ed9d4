//! `/v1/completions`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chat::FullUsage;
use super::{CompletionLogprobs, Extra, SamplingFields, Usage};

/// What to complete: text or token ids, one or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of such lists"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// One prompt of token ids.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts of token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// A request as a client sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The name under which the model is served; absent means the only one.
    #[serde(default)]
    pub model: Option<String>,
    /// What to complete.
    pub prompt: Prompt,
    /// The most tokens to generate; default 16, as OpenAI's.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// How many alternatives a position; null for none at all.
    #[serde(default)]
    pub logprobs: Option<u32>,
    /// Whether the text starts with the prompt.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Only equal to `n`.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// Refused: the engine does not fill in the middle.
    #[serde(default)]
    pub suffix: Option<String>,
    /// Whether the tokenizer adds its beginning of text; default true.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// Shared fields.
    #[serde(flatten)]
    pub sampling: SamplingFields,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One of the answers: prompts times `n`, prompt by prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Prompt's index × `n` + answer's index.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Where asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
    /// The stop string or token id that ended it; null for the model's own end.
    pub stop_reason: Option<Value>,
    /// Where `return_token_ids` asked for them.
    pub token_ids: Option<Vec<u32>>,
    /// Always null.
    pub prompt_logprobs: Option<Value>,
    /// Where `return_token_ids` asked for them.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Always null (experts of mixture models).
    pub routed_experts: Option<Value>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionResponse {
    /// `cmpl-…`.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The name that was asked for.
    pub model: String,
    /// The answers, by index.
    pub choices: Vec<CompletionChoice>,
    /// Always null.
    pub service_tier: Option<Value>,
    /// The build that answered.
    pub system_fingerprint: Option<String>,
    /// Token counts.
    pub usage: FullUsage,
    /// Where to pull this prompt's KV, for a request that asked to be decoded elsewhere.
    pub kv_transfer_params: Option<Value>,
    /// Always null.
    pub ec_transfer_params: Option<Value>,
    /// Always null.
    pub metrics: Option<Value>,
}

/// One choice's part of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionChunkChoice {
    /// As in [`CompletionChoice`].
    pub index: u32,
    /// New text.
    pub text: String,
    /// Of the tokens of this chunk.
    pub logprobs: Option<CompletionLogprobs>,
    /// In the last chunk of a choice.
    pub finish_reason: Option<String>,
    /// In the last chunk of a choice.
    pub stop_reason: Option<Value>,
    /// Where `return_token_ids` asked for them, in the first chunk.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Where `return_token_ids` asked for them.
    pub token_ids: Option<Vec<u32>>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionChunk {
    /// The same in all chunks of a stream.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The name that was asked for.
    pub model: String,
    /// Empty in the chunk that carries the usage.
    pub choices: Vec<CompletionChunkChoice>,
    /// Where `stream_options` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The build that answered, in the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}
