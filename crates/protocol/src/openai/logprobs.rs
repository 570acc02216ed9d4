//! Log-probabilities, in the two shapes that OpenAI has for them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One alternative at one position of a chat answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// The token's text (with replacement characters where it is no whole UTF-8).
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's own bytes.
    pub bytes: Option<Vec<u8>>,
}

/// One position of a chat answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatLogprob {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's own bytes.
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens here, likeliest first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// `choices[].logprobs` of a chat answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatLogprobs {
    /// One entry a token.
    pub content: Vec<ChatLogprob>,
}

/// `choices[].logprobs` of a completion: parallel lists, one entry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionLogprobs {
    /// Where each token's text starts, in characters from the start of the text.
    pub text_offset: Vec<usize>,
    /// Null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Text to log-probability, the likeliest first, the chosen one always among them.
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
}
