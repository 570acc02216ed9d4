//! `/tokenize` and `/detokenize`, vLLM's extensions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Extra;

/// Text or a chat to be cut into tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct TokenizeRequest {
    /// The name under which the model is served; absent means the only one.
    pub model: Option<String>,
    /// A text; either this or `messages`.
    pub prompt: Option<String>,
    /// A chat; either this or `prompt`.
    pub messages: Option<Vec<Value>>,
    /// Default true for a text, false for a chat.
    pub add_special_tokens: Option<bool>,
    /// Default true.
    pub add_generation_prompt: Option<bool>,
    /// Functions offered to the model, by its template.
    pub tools: Option<Vec<Value>>,
    /// Variables for the template.
    pub chat_template_kwargs: Option<Extra>,
    /// Whether the tokens' texts are given too.
    pub return_token_strs: Option<bool>,
}

/// The tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizeResponse {
    /// How many.
    pub count: usize,
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: usize,
    /// The ids.
    pub tokens: Vec<u32>,
    /// Where asked for.
    pub token_strs: Option<Vec<String>>,
}

/// Tokens to be made text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetokenizeRequest {
    /// The name under which the model is served; absent means the only one.
    #[serde(default)]
    pub model: Option<String>,
    /// The ids.
    pub tokens: Vec<u32>,
}

/// The text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetokenizeResponse {
    /// The tokens' text.
    pub prompt: String,
}
