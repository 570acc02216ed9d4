//! One step: what is computed in it, within which bounds.

use plumb_engine::Rows;
use plumb_kv::Block;

use super::{SeqId, Sequence};

/// The bounds of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run at once.
    pub max_seqs: usize,
    /// Tokens a step.
    pub max_batch_tokens: usize,
    /// Prompt tokens a step; at most `max_batch_tokens`.
    pub max_prompt_tokens: usize,
    /// Prompt tokens a step while others decode: what bounds the time between their tokens.
    pub max_prompt_tokens_beside_decodes: usize,
    /// Rows of logits a step; at least `max_seqs`.
    pub max_logit_rows: usize,
}

/// A running sequence's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Which sequence, among the running ones.
    pub slot: usize,
    /// Position of the first token.
    pub start: usize,
    /// How many tokens.
    pub count: usize,
    /// Which of them get logits.
    pub rows: Rows,
    /// Whether its last token is the sequence's last: a next one is to be sampled.
    pub samples: bool,
}

/// A sequence whose blocks a peer should fill.
#[derive(Debug)]
pub struct PullOrder {
    /// Which sequence.
    pub id: SeqId,
    /// The place of `blocks[0]` in the prompt; blocks before it were found here.
    pub first: usize,
    /// The blocks to fill, consecutive; empty if all were found here.
    pub blocks: Vec<Block>,
}

/// One step.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to compute, decodes first.
    pub work: Vec<Work>,
    /// Pulls to be started.
    pub pulls: Vec<PullOrder>,
    tokens_left: usize,
    prompt_tokens_left: usize,
    beside_decodes: usize,
    rows_left: usize,
}

impl Plan {
    pub(super) fn begin(&mut self, limits: &Limits) {
        self.work.clear();
        self.pulls.clear();
        self.tokens_left = limits.max_batch_tokens;
        self.prompt_tokens_left = limits.max_prompt_tokens;
        self.beside_decodes = limits.max_prompt_tokens_beside_decodes;
        self.rows_left = limits.max_logit_rows;
    }

    /// Whether another token fits.
    pub(super) fn has_room(&self) -> bool {
        self.tokens_left > 0 && self.rows_left > 0
    }

    /// Whether another prompt's chunk fits.
    pub(super) fn has_prompt_room(&self) -> bool {
        self.has_room() && self.prompt_tokens_left > 0
    }

    pub(super) fn push_decode<T>(&mut self, slot: usize, sequence: &Sequence<T>) {
        self.prompt_tokens_left = self.prompt_tokens_left.min(self.beside_decodes);
        self.push(slot, sequence, 1);
    }

    /// As much of a prompt as the budgets leave.
    pub(super) fn push_prompt<T>(&mut self, slot: usize, sequence: &Sequence<T>) {
        let mut count = sequence.pending().min(self.tokens_left).min(self.prompt_tokens_left);
        if sequence.wants_all_rows() {
            count = count.min(self.rows_left);
        }
        if count == 0 || self.rows_left == 0 {
            return;
        }
        self.prompt_tokens_left -= count;
        self.push(slot, sequence, count);
    }

    fn push<T>(&mut self, slot: usize, sequence: &Sequence<T>, count: usize) {
        let samples = count == sequence.pending();
        let rows = match () {
            () if sequence.wants_all_rows() => Rows::All,
            () if samples => Rows::Last,
            () => Rows::None,
        };
        self.tokens_left -= count;
        self.rows_left -= match rows {
            Rows::All => count,
            Rows::Last => 1,
            Rows::None => 0,
        };
        let start = sequence.computed();
        self.work.push(Work { slot, start, count, rows, samples });
    }
}
