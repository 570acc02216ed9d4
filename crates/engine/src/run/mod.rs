//! Running a plan over one batch.
//!
//! Every operation is cut into parts that write to disjoint places, so that which thread takes
//! which part changes nothing; between operations all threads meet.

mod attend;
mod heads;
mod products;
mod rows;

use crate::batch::Slice;
use crate::kernels::attention::Scratch;
use crate::kernels::level::Level;
use crate::kernels::matmul::Isa;
use crate::model::{KvType, Model};
use crate::plan::{Floats, Kind, Op, Plan, Quantised, RowSet};
use crate::threads::Member;
use plumb_kv::{BlockId, PoolView};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

pub(crate) use attend::TileOf;

/// One token of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) token: u32,
    /// Position in its sequence.
    pub(crate) position: u32,
    /// Index of its slice.
    pub(crate) slice: u32,
}

/// Memory of one thread alone.
#[derive(Debug)]
pub(crate) struct Own(UnsafeCell<Scratch>);

// SAFETY: `Step::own` hands each member of the team its own.
unsafe impl Sync for Own {}

impl Own {
    pub(crate) fn new(scratch: Scratch) -> Self {
        Self(UnsafeCell::new(scratch))
    }
}

/// A batch that has been checked, and everything needed to compute it.
pub(crate) struct Step<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) isa: Isa,
    pub(crate) level: Level,
    /// `plan.arena` bytes, aligned to 64, ours alone.
    pub(crate) arena: NonNull<u8>,
    pub(crate) batch: &'a [Slice<'a>],
    pub(crate) rows: &'a [Row],
    /// Indices into `rows`, ascending.
    pub(crate) logit_rows: &'a [u32],
    pub(crate) tiles: &'a [TileOf],
    pub(crate) view: PoolView<'a>,
    pub(crate) block_tokens: usize,
    pub(crate) kv: KvType,
    /// One a member of the team.
    pub(crate) own: &'a [Own],
}

// SAFETY: the arena and the blocks are shared by parts that write to disjoint places.
unsafe impl Sync for Step<'_> {}

impl Step<'_> {
    /// Runs one operation: every member of the team calls it.
    pub(crate) fn run(&self, op: &Op, me: &Member<'_>) {
        let rows = self.count(op.rows);
        if rows == 0 {
            return;
        }
        match &op.kind {
            Kind::Turns { full, windowed } => self.turns(me, *full, *windowed),
            Kind::Embed { x, scale } => self.embed(me, *x, *scale),
            Kind::Norm { of, x, residual, floats, quantised } => {
                self.norm(me, rows, (*of, *residual), *x, *floats, *quantised);
            }
            Kind::Multiply { floats, quantised, products, .. } => {
                self.multiply(me, rows, *floats, *quantised, products);
            }
            Kind::Heads { layer, q, k, v, turns } => self.heads(me, *layer, [*q, *k, *v], *turns),
            Kind::Attend { layer, q, out } => self.attend(me, *layer, *q, *out),
            Kind::Gather { from, to } => self.gather(me, from, to),
            Kind::Quantise { floats, quantised } => self.quantise(me, rows, *floats, *quantised),
            Kind::Gate { gate, up, floats, quantised } => {
                self.gate(me, rows, [*gate, *up], *floats, *quantised);
            }
        }
    }

    fn count(&self, rows: RowSet) -> usize {
        match rows {
            RowSet::Batch => self.rows.len(),
            RowSet::Logits => self.logit_rows.len(),
        }
    }

    /// One row of a buffer.
    ///
    /// # Safety
    /// Nobody else writes to the row while the slice lives, and nobody reads it if it is written.
    #[allow(clippy::mut_from_ref, reason = "rows are shared out by parts, as the caller promises")]
    unsafe fn row(&self, floats: Floats, row: usize) -> &mut [f32] {
        let at = floats.offset + row * floats.width * size_of::<f32>();
        debug_assert!(at + floats.width * size_of::<f32>() <= self.plan.arena);
        // SAFETY: the plan placed the row inside the arena; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.arena.as_ptr().add(at).cast(), floats.width) }
    }

    /// The first `rows` rows of a buffer, to be read.
    ///
    /// # Safety
    /// Nobody writes to them while the slice lives.
    unsafe fn all(&self, floats: Floats, rows: usize) -> &[f32] {
        // SAFETY: the plan placed the rows inside the arena; the caller's promise.
        unsafe {
            let first = self.arena.as_ptr().add(floats.offset).cast::<f32>();
            std::slice::from_raw_parts(first, rows * floats.width)
        }
    }

    fn quantised_at(&self, quantised: Quantised) -> *mut u8 {
        // SAFETY: the plan placed the buffer inside the arena.
        unsafe { self.arena.as_ptr().add(quantised.offset) }
    }

    /// Where the numbers and the factors of a layer begin in a block (see `KvType`).
    fn kept(&self, block: BlockId, layer: usize) -> [*mut u8; 2] {
        let layers = self.model.config().layers;
        [layer, layers + layer].map(|part| self.view.layer(block, part).as_ptr())
    }

    /// The calling member's own memory.
    ///
    /// # Safety
    /// The caller holds no other reference to it.
    #[allow(clippy::mut_from_ref, reason = "one member has one scratch, as the caller promises")]
    unsafe fn own(&self, me: &Member<'_>) -> &mut Scratch {
        // SAFETY: no two members have the same index.
        unsafe { &mut *self.own[me.index].0.get() }
    }
}
