//! From a row of logits to a token, with the semantics and the order of vLLM.
//!
//! 1. Log-probabilities, where asked for, are of the logits as the model gave them.
//! 2. `penalties`: stop tokens are banned before `min_tokens`, then `logit_bias`, then repetition,
//!    frequency and presence penalties.
//! 3. Temperature 0 takes the greatest logit, of equal ones the lowest id.
//! 4. Otherwise logits are divided by the temperature, then cut by min-p, top-k and top-p
//!    (`cut`), and a token is drawn (`random`).

mod cut;
mod logprobs;
mod penalties;
mod random;
mod sampler;

pub use sampler::Sampler;

/// How tokens of one request are chosen. Ranges are those of OpenAI's and vLLM's APIs; values
/// outside are the caller's to refuse, here they do no harm.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Only the k greatest logits (and those equal to the last of them); 0: all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Only tokens at least this many times as probable as the most probable one; 0: all.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative ones of tokens in prompt or output; 1: none.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token of the output.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time that it is in the output.
    pub frequency_penalty: f32,
    /// Makes a request's draws repeatable; without it they are different each time.
    pub seed: Option<u64>,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens before which `stop_tokens` may not be chosen.
    pub min_tokens: usize,
    /// Tokens that end a request, for `min_tokens` alone.
    pub stop_tokens: Vec<u32>,
    /// How many of the most probable tokens to report; `None`: no log-probabilities at all.
    pub logprobs: Option<usize>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
            min_tokens: 0,
            stop_tokens: Vec::new(),
            logprobs: None,
        }
    }
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability; `None` where none were asked for.
    pub logprob: Option<f32>,
    /// The most probable tokens with their log-probabilities, greatest first, ties by id.
    pub top: Vec<(u32, f32)>,
}

pub use logprobs::logprobs;

/// The greatest logit, of equal ones the lowest id; NaN never wins.
#[must_use]
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0 as u32
}
