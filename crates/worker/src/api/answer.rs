//! One request's answers, as they come from the engine's thread.

use plumb_protocol::ApiError;
use plumb_protocol::openai::Usage;
use serde_json::Value;

use crate::generation::{Event, Failure, Kept, Scored};
use crate::instance::Ticket;
use crate::output::{Choice, Piece};

/// What is new.
#[derive(Debug)]
pub enum Update {
    /// Log-probabilities of tokens of a prompt, in order.
    Prompt(u32, Vec<Option<Scored>>),
    /// One more token of a choice.
    Token {
        /// Which choice.
        index: u32,
        /// The token.
        scored: Scored,
        /// What it did to the text.
        piece: Piece,
    },
}

/// All choices of one request. Dropping it before the end stops the computation.
#[derive(Debug)]
pub struct Answer {
    ticket: Ticket,
    choices: Vec<Open>,
    prompts: Vec<Vec<u32>>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Open {
    choice: Choice,
    ended: bool,
}

impl Answer {
    /// `choices`: one for each that the ticket's prompts will have.
    pub fn new(ticket: Ticket, choices: Vec<Choice>, prompts: Vec<Vec<u32>>) -> Self {
        let choices = choices.into_iter().map(|choice| Open { choice, ended: false }).collect();
        Self { ticket, choices, prompts, kept: None }
    }

    /// The next thing that happens; none once all choices have ended.
    pub async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        while self.choices.iter().any(|c| !c.ended) {
            let Some(event) = self.ticket.next().await else {
                return Some(Err(ApiError::internal("The engine stopped.")));
            };
            match event {
                Event::Kept(kept) => self.kept = Some(kept),
                Event::Failed(failure) => return Some(Err(as_error(&failure))),
                Event::Prompt { index, scored } => return Some(Ok(Update::Prompt(index, scored))),
                Event::Token { index, scored, finish } => {
                    let Some(open) = self.choices.get_mut(index as usize) else { continue };
                    if open.ended {
                        continue;
                    }
                    let piece = open.choice.push(&scored, finish);
                    open.ended = piece.ended.is_some();
                    if open.ended && finish.is_none() {
                        // A stop string: the engine knows nothing of it.
                        self.ticket.stop(index);
                    }
                    return Some(Ok(Update::Token { index, scored, piece }));
                }
            }
        }
        None
    }

    /// Token counts so far.
    pub fn usage(&self) -> Usage {
        let generated = self.choices.iter().map(|c| c.choice.tokens() as u64).sum();
        let prompts = self.prompts.iter().map(|prompt| prompt.len() as u64).sum();
        Usage::new(prompts, generated)
    }

    /// The tokens of the first prompt.
    pub fn prompt(&self) -> &[u32] {
        self.prompts.first().map_or(&[], Vec::as_slice)
    }

    /// The tokens of all prompts.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Where the prompt's KV waits, if it was kept for another instance; the client's from now on.
    pub fn hand_over(&mut self) -> Option<Value> {
        let remote = self.kept.take()?.hand_over()?;
        Some(Value::Object(remote.to_map()))
    }
}

fn as_error(failure: &Failure) -> ApiError {
    match failure {
        Failure::Engine(_) | Failure::Pull(_) => ApiError::internal(failure.to_string()),
        Failure::ShuttingDown => ApiError::unavailable(failure.to_string(), 1),
    }
}
