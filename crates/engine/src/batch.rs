//! What goes into a step and what comes out of it.

use plumb_kv::BlockId;

/// Which rows of a slice get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// None: the slice only fills the KV cache.
    None,
    /// The last token's row.
    Last,
    /// Every row, e.g. for the log-probabilities of a prompt.
    All,
}

/// Consecutive tokens of one sequence, to be computed in one step.
///
/// Positions before `start` are already in `blocks`; the step writes positions
/// `start..start + tokens.len()`. The blocks written must belong to this slice alone.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Position of `tokens[0]` in its sequence.
    pub start: usize,
    /// The sequence's whole block table, from position 0.
    pub blocks: &'a [BlockId],
    /// Which rows get logits.
    pub logits: Rows,
}

impl Slice<'_> {
    pub(crate) fn logit_rows(&self) -> usize {
        match self.logits {
            Rows::None => 0,
            Rows::Last => 1,
            Rows::All => self.tokens.len(),
        }
    }
}

/// Logits of one step, in batch order. They live in the engine until the next step.
#[derive(Debug)]
pub struct Logits<'a> {
    data: &'a mut [f32],
    vocab: usize,
}

impl<'a> Logits<'a> {
    pub(crate) fn new(data: &'a mut [f32], vocab: usize) -> Self {
        Self { data, vocab }
    }

    /// The rows, each of `vocab` values: a slice's rows together, slices in batch order.
    pub fn rows(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.vocab)
    }

    /// One row. Panics when there is no such row, as indexing does.
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[index * self.vocab..(index + 1) * self.vocab]
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.vocab
    }

    /// Whether no slice asked for logits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}
