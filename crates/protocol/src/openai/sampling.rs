//! The fields that chat and completion requests share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One value or a list of them, as OpenAI allows for `stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected one value or a list of them")]
pub enum OneOrMany<T> {
    /// A bare value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values as a list.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// What a stream carries beside its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// A last chunk with the token counts.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Token counts in every chunk (vLLM's extension).
    #[serde(default)]
    pub continuous_usage_stats: Option<bool>,
}

/// How tokens are chosen and when generation ends. Absent and null mean the same: the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingFields {
    /// Softmax temperature; 0 is greedy; default 1.
    pub temperature: Option<f32>,
    /// Nucleus mass in (0, 1]; default 1.
    pub top_p: Option<f32>,
    /// How many tokens to choose from; 0 and −1 mean all.
    pub top_k: Option<i64>,
    /// Least probability as a share of the likeliest token's, 0 to 1.
    pub min_p: Option<f32>,
    /// −2 to 2, by how often a token was generated.
    pub frequency_penalty: Option<f32>,
    /// −2 to 2, once a token was generated.
    pub presence_penalty: Option<f32>,
    /// Over 0; divides the logits of tokens seen in prompt or answer; default 1.
    pub repetition_penalty: Option<f32>,
    /// Added to the logits of tokens, by id in decimal; −100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// Strings that end the answer.
    pub stop: Option<OneOrMany<String>>,
    /// Token ids that end the answer.
    pub stop_token_ids: Option<Vec<u32>>,
    /// Whether the stop string stays in the text.
    pub include_stop_str_in_output: Option<bool>,
    /// Whether generation goes on past the model's own end.
    pub ignore_eos: Option<bool>,
    /// No end by token or string before so many tokens.
    pub min_tokens: Option<u32>,
    /// How many answers; default 1.
    pub n: Option<u32>,
    /// Whether special tokens are left out of the text; default true.
    pub skip_special_tokens: Option<bool>,
    /// Whether the ids of prompt and answer are given back (vLLM's extension).
    pub return_token_ids: Option<bool>,
    /// Keeps cached prefixes of one tenant from another.
    pub cache_salt: Option<String>,
    /// Server-sent events instead of one body.
    pub stream: Option<bool>,
    /// Only together with `stream`.
    pub stream_options: Option<StreamOptions>,
    /// What a router carries between prefill and decode; opaque to clients.
    pub kv_transfer_params: Option<Value>,
}

/// Token counts of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Prompt and answer.
    pub total_tokens: u64,
    /// Tokens of the answer, over all choices.
    pub completion_tokens: u64,
}

impl Usage {
    /// Counts of an answer of `completion` tokens to a prompt of `prompt`.
    #[must_use]
    pub fn new(prompt: u64, completion: u64) -> Self {
        Self {
            prompt_tokens: prompt,
            total_tokens: prompt + completion,
            completion_tokens: completion,
        }
    }
}
