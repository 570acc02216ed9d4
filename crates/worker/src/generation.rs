//! What the API asks of the engine's thread, and what comes back.

use std::sync::Arc;

use plumb_engine::sampling::Params;
use plumb_kv::Leases;
use plumb_protocol::kv_transfer::{self, RemotePrefill};

/// One prompt to be answered `n` times.
#[derive(Debug)]
pub struct Generation {
    /// The request's public name, such as `cmpl-…`.
    pub name: String,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Params,
    /// How many answers.
    pub n: u32,
    /// The number of the first of them among all of the request's.
    pub first_index: u32,
    /// When an answer ends.
    pub limits: AnswerLimits,
    /// Alternatives for each token of the prompt, if its log-probabilities are wanted.
    pub prompt_logprobs: Option<u32>,
    /// Keeps cached prefixes of one tenant from another.
    pub salt: Arc<[u8]>,
    /// What another instance computes, or will pull.
    pub transfer: kv_transfer::Request,
}

/// When an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerLimits {
    /// The most tokens; prompt and answer fit the context.
    pub max_tokens: usize,
    /// No end by token before so many.
    pub min_tokens: usize,
    /// Whether the model's own end is ignored.
    pub ignore_eos: bool,
    /// Tokens that end it beside the model's own.
    pub stop_ids: Vec<u32>,
}

/// A token with its log-probability and those of the likeliest others.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability; 0 where it was not asked for.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first; empty where they were not asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// As many tokens as were asked for, or as the context holds.
    Length,
    /// The model's own end.
    End,
    /// A token of `stop_ids`.
    StopToken(u32),
}

/// What the engine's thread tells a request.
#[derive(Debug)]
pub enum Event {
    /// Log-probabilities of some of a prompt's tokens, in order; none for the very first.
    Prompt {
        /// The first of the prompt's answers.
        index: u32,
        /// One a token.
        scored: Vec<Option<Scored>>,
    },
    /// The next token of an answer.
    Token {
        /// Which answer.
        index: u32,
        /// The token.
        scored: Scored,
        /// Why it is the last one, if it is.
        finish: Option<Finish>,
    },
    /// Where this prompt's KV can be pulled; before the answer's last token.
    Kept(Kept),
    /// Nothing more will come.
    Failed(Failure),
}

/// A prompt's KV under a lease. Dropping it ends the lease: whoever takes it out hands it to a client.
#[derive(Debug)]
pub struct Kept {
    remote: Option<Box<RemotePrefill>>,
    leases: Arc<Leases>,
}

impl Kept {
    /// What was granted in `leases`.
    pub fn new(remote: RemotePrefill, leases: Arc<Leases>) -> Self {
        Self { remote: Some(Box::new(remote)), leases }
    }

    /// The lease is the client's now.
    pub fn hand_over(mut self) -> Option<Box<RemotePrefill>> {
        self.remote.take()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(remote) = &self.remote {
            // It may have expired meanwhile.
            self.leases.release(&remote.request_id).ok();
        }
    }
}

/// Why a request could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine refused the batch or broke.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// A pull failed and policy says not to compute the prompt here.
    #[error("the KV cache could not be pulled from the prefill instance: {0}")]
    Pull(String),
    /// The instance is going down.
    #[error("the instance is shutting down")]
    ShuttingDown,
}
