//! What each token adds to a completion: text, log-probabilities, ids.

use std::sync::Arc;

use plumb_protocol::openai::{CompletionLogprobs, CompletionRequest};
use plumb_text::Tokenizer;

use crate::api::answer::Update;
use crate::api::logprobs::{push_completion, text};
use crate::generation::Scored;
use crate::output::Ended;

/// A prompt, as it may be repeated before its completions.
#[derive(Debug)]
pub struct Echo {
    /// None where it is not repeated.
    text: Option<String>,
    tokens: Vec<u32>,
    scored: Vec<Option<Scored>>,
}

/// Turns updates into what is new for the client.
#[derive(Debug)]
pub struct Writer {
    echoes: Vec<Echo>,
    /// Whether a choice has begun.
    begun: Vec<bool>,
    n: usize,
    logprobs: bool,
    tokenizer: Arc<Tokenizer>,
}

/// What is new in one choice.
#[derive(Debug)]
pub struct Increment {
    /// Which choice.
    pub index: u32,
    /// New text; the first has the echoed prompt.
    pub text: String,
    /// Of the tokens of this increment, where asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// The new token.
    pub token: u32,
    /// Whether it is the choice's first.
    pub first: bool,
    /// Set in the last.
    pub ended: Option<Ended>,
}

impl Echo {
    /// A prompt; `text` where it is to be repeated.
    pub fn new(text: Option<String>, tokens: &[u32]) -> Self {
        let tokens = if text.is_some() { tokens.to_vec() } else { Vec::new() };
        Self { text, tokens, scored: Vec::new() }
    }
}

impl Writer {
    /// A writer for the choices of `request`, whose prompts are `echoes`.
    pub fn new(request: &CompletionRequest, echoes: Vec<Echo>, tokenizer: Arc<Tokenizer>) -> Self {
        let n = request.sampling.n.unwrap_or(1) as usize;
        let begun = vec![false; echoes.len() * n];
        Self { echoes, begun, n, logprobs: request.logprobs.is_some(), tokenizer }
    }

    /// How many choices there are.
    pub fn choices(&self) -> usize {
        self.begun.len()
    }

    /// Which prompt a choice completes.
    pub fn prompt_of(&self, index: u32) -> usize {
        index as usize / self.n
    }

    /// What an update adds; none if nothing of it is for the client.
    pub fn add(&mut self, update: Update) -> Option<Increment> {
        let (index, scored, piece) = match update {
            Update::Prompt(index, scored) => {
                let prompt = self.prompt_of(index);
                self.echoes[prompt].scored.extend(scored);
                return None;
            }
            Update::Token { index, scored, piece } => (index, scored, piece),
        };
        let first = !std::mem::replace(&mut self.begun[index as usize], true);
        let echo = &self.echoes[self.prompt_of(index)];
        let echoed = echo.text.as_deref().unwrap_or("");
        let mut text = if first { echoed.to_owned() } else { String::new() };
        text.push_str(&piece.text);
        let logprobs = self.logprobs.then(|| {
            let mut list = CompletionLogprobs::default();
            if first {
                self.push_prompt(&mut list, echo);
            }
            let offset = echoed.chars().count() + piece.offset;
            push_completion(&mut list, &self.tokenizer, scored.token, Some(&scored), offset);
            list
        });
        Some(Increment { index, text, logprobs, token: scored.token, first, ended: piece.ended })
    }

    fn push_prompt(&self, list: &mut CompletionLogprobs, echo: &Echo) {
        let mut offset = 0;
        for (&token, scored) in echo.tokens.iter().zip(&echo.scored) {
            push_completion(list, &self.tokenizer, token, scored.as_ref(), offset);
            offset += text(&self.tokenizer, token).chars().count();
        }
    }
}
