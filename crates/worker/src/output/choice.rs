//! One answer: its tokens become text that may be shown.

use std::sync::Arc;

use plumb_text::{Detokenizer, Tokenizer};
use serde_json::Value;

use super::StopMatcher;
use crate::generation::{Finish, Scored};

/// How tokens become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOptions {
    /// Strings that end the answer.
    pub stops: Vec<String>,
    /// Whether what ended the answer stays in the text.
    pub keep_stop: bool,
    /// Whether special tokens are left out.
    pub skip_special: bool,
    /// No end by string before so many tokens.
    pub min_tokens: usize,
}

/// Why an answer ended, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `stop` or `length`.
    pub reason: &'static str,
    /// The stop string or token id; null for the model's own end.
    pub stop_reason: Value,
}

/// What one more token led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Text that may be shown now; often less or more than the token's own.
    pub text: String,
    /// Where in the answer the token's own text starts, in characters.
    pub offset: usize,
    /// Set in the answer's last piece.
    pub ended: Option<Ended>,
}

impl Piece {
    /// Whether a client need not be told yet.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.text.is_empty() && self.ended.is_none()
    }
}

/// An answer in the making.
#[derive(Debug)]
pub struct Choice {
    options: TextOptions,
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    tokens: usize,
    /// Characters of text so far, shown or held back.
    characters: usize,
}

impl Choice {
    /// An answer without tokens.
    #[must_use]
    pub fn new(tokenizer: &Arc<Tokenizer>, options: TextOptions) -> Self {
        Self {
            detokenizer: Detokenizer::new(tokenizer).with_special(!options.skip_special),
            matcher: StopMatcher::new(options.stops.clone(), options.keep_stop),
            options,
            tokens: 0,
            characters: 0,
        }
    }

    /// Tokens so far.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Takes the next token. After a piece with `ended`, no more may come.
    pub fn push(&mut self, scored: &Scored, finish: Option<Finish>) -> Piece {
        self.tokens += 1;
        let offset = self.characters;
        let mut new = self.text_of(scored.token, finish);
        if finish.is_some() {
            new.push_str(&self.detokenizer.finish());
        }
        self.characters += new.chars().count();
        let (mut text, mut ended) = self.pass(&new);
        if ended.is_none()
            && let Some(finish) = finish
        {
            text.push_str(&self.matcher.finish());
            ended = Some(Ended::by(finish));
        }
        Piece { text, offset, ended }
    }

    /// The text that this token completes; what ends an answer is no part of it unless asked for.
    fn text_of(&mut self, token: u32, finish: Option<Finish>) -> String {
        let ends = matches!(finish, Some(Finish::End | Finish::StopToken(_)));
        if ends && !self.options.keep_stop { String::new() } else { self.detokenizer.push(token) }
    }

    fn pass(&mut self, new: &str) -> (String, Option<Ended>) {
        if self.tokens < self.options.min_tokens {
            return (new.to_owned(), None);
        }
        let passed = self.matcher.push(new);
        let ended = passed.stopped_by.map(|which| Ended {
            reason: "stop",
            stop_reason: self.options.stops[which].clone().into(),
        });
        (passed.text, ended)
    }
}

impl Ended {
    fn by(finish: Finish) -> Self {
        let (reason, stop_reason) = match finish {
            Finish::Length => ("length", Value::Null),
            Finish::End => ("stop", Value::Null),
            Finish::StopToken(id) => ("stop", id.into()),
        };
        Self { reason, stop_reason }
    }
}
