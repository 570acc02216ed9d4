//! `/v1/chat/completions`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{ChatLogprobs, Extra, SamplingFields, Usage};

/// A request as a client sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The name under which the model is served; absent means the only one.
    #[serde(default)]
    pub model: Option<String>,
    /// Objects with `role` and `content`; kept whole, since templates read fields of their own.
    pub messages: Vec<Value>,
    /// The older name of `max_completion_tokens`.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// The most tokens to generate; default: what the context leaves.
    #[serde(default)]
    pub max_completion_tokens: Option<u32>,
    /// Whether log-probabilities are given.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// How many alternatives a position, 0 to 20.
    #[serde(default)]
    pub top_logprobs: Option<u32>,
    /// Functions offered to the model, by its template.
    #[serde(default)]
    pub tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required` or a named function.
    #[serde(default)]
    pub tool_choice: Option<Value>,
    /// Whether the template opens the assistant's turn; default true.
    #[serde(default)]
    pub add_generation_prompt: Option<bool>,
    /// Whether the template leaves the last message open (vLLM's extension).
    #[serde(default)]
    pub continue_final_message: Option<bool>,
    /// Whether the tokenizer adds its own special tokens to the template's; default false.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// Variables for the template.
    #[serde(default)]
    pub chat_template_kwargs: Option<Extra>,
    /// Whether the answer starts with the last message's text.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Shared fields.
    #[serde(flatten)]
    pub sampling: SamplingFields,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The assistant's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `assistant`.
    pub role: String,
    /// The text.
    pub content: Option<String>,
    /// Always null: nothing here refuses.
    pub refusal: Option<Value>,
    /// Always null.
    pub annotations: Option<Value>,
    /// Always null.
    pub audio: Option<Value>,
    /// Always null.
    pub function_call: Option<Value>,
    /// Always null: reasoning is not parsed out of the text.
    pub reasoning: Option<Value>,
}

impl ChatMessage {
    /// An assistant's message of plain text.
    #[must_use]
    pub fn assistant(content: String) -> Self {
        Self {
            role: "assistant".into(),
            content: Some(content),
            refusal: None,
            annotations: None,
            audio: None,
            function_call: None,
            reasoning: None,
        }
    }
}

/// One of `n` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// 0 to `n` − 1.
    pub index: u32,
    /// The answer.
    pub message: ChatMessage,
    /// Where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
    /// The stop string or token id that ended it; null for the model's own end.
    pub stop_reason: Option<Value>,
    /// Where `return_token_ids` asked for them.
    pub token_ids: Option<Vec<u32>>,
    /// Always null (experts of mixture models).
    pub routed_experts: Option<Value>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// `chatcmpl-…`.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The name that was asked for.
    pub model: String,
    /// `n` answers, by index.
    pub choices: Vec<ChatChoice>,
    /// Always null.
    pub service_tier: Option<Value>,
    /// The build that answered.
    pub system_fingerprint: Option<String>,
    /// Token counts.
    pub usage: FullUsage,
    /// Always null.
    pub prompt_logprobs: Option<Value>,
    /// Where `return_token_ids` asked for them.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Always null.
    pub prompt_text: Option<String>,
    /// Where to pull this prompt's KV, for a request that asked to be decoded elsewhere.
    pub kv_transfer_params: Option<Value>,
    /// Always null.
    pub ec_transfer_params: Option<Value>,
    /// Always null.
    pub metrics: Option<Value>,
}

/// Token counts as whole answers carry them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullUsage {
    /// The counts.
    #[serde(flatten)]
    pub counts: Usage,
    /// Always null, as vLLM's is unless it is told otherwise.
    pub prompt_tokens_details: Option<()>,
    /// Always null.
    pub completion_tokens_details: Option<()>,
}

impl From<Usage> for FullUsage {
    fn from(counts: Usage) -> Self {
        Self { counts, ..Self::default() }
    }
}

/// What a chunk adds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatDelta {
    /// `assistant`, in the first chunk only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// New text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// One choice's part of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunkChoice {
    /// 0 to `n` − 1.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// Of the tokens of this chunk.
    pub logprobs: Option<ChatLogprobs>,
    /// In the last chunk of a choice.
    pub finish_reason: Option<String>,
    /// Present in the last chunk of a choice only.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Option<Value>>,
    /// Absent in the first chunk (the role's).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Option<Vec<u32>>>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    /// The same in all chunks of a stream.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The name that was asked for.
    pub model: String,
    /// Empty in the chunk that carries the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// Where `stream_options` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// In the first chunk: null, or the ids where `return_token_ids` asked for them.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Option<Vec<u32>>>,
    /// In the first chunk: null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub prompt_text: Option<Option<String>>,
    /// The build that answered, in the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// A field that is there, if only as null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}
