//! A model compiled to a list of operations over buffers in one arena.
//!
//! - `op`: what an operation reads and writes.
//! - `compile`: from a model to the list.
//! - `place`: where each buffer lies: buffers that never live at the same time share bytes.
//! - `explain`: the plan for people.

mod compile;
mod explain;
mod op;
mod place;

pub(crate) use compile::compile;
pub(crate) use explain::{Asked, buffers, ops};
pub use explain::{BufferReport, Done, OpReport, PlanReport};
pub(crate) use op::{Floats, Kind, NormOf, Op, Product, Quantised, Residual, RowSet};

/// The largest sizes of a step, from the engine's options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tokens of a step.
    pub(crate) rows: usize,
    /// Rows of logits of a step.
    pub(crate) logit_rows: usize,
}

/// A compiled model.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    pub(crate) logits: Floats,
    /// Bytes of the arena.
    pub(crate) arena: usize,
    pub(crate) buffers: Vec<place::Buffer>,
}
