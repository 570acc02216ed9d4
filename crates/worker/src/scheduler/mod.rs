//! Which tokens are computed next: continuous batching over a pool of blocks.
//!
//! A pure state machine: no clock, no threads, no model. The engine's thread asks for a [`Plan`],
//! computes it, and reports back. Its promises (held by `tests/scheduler.rs`):
//!
//! - running decodes come first in every step, one token each: a long prompt never stalls them;
//! - prompts are computed in chunks, in order of arrival, within the step's token budget;
//! - a sequence starts only when the blocks of its whole prompt are there; when blocks run out in
//!   the middle, the youngest sequence gives its own back and is computed again later;
//! - so the oldest sequence always gets on, and whatever fits the pool alone is finished;
//! - a block that is written belongs to one sequence.

mod admission;
mod plan;
mod sequence;

use std::collections::VecDeque;
use std::sync::Arc;

use plumb_kv::{Block, BlockId, Pool};

pub use plan::{Limits, Plan, PullOrder, Work};
pub use sequence::{NewSequence, SeqId, Sequence};

/// All sequences of an instance. `T` is what the caller keeps with each.
#[derive(Debug)]
pub struct Scheduler<T> {
    pool: Arc<Pool>,
    limits: Limits,
    arrivals: u64,
    /// In order of arrival; those that were put back are older than all that never ran.
    waiting: VecDeque<Sequence<T>>,
    /// In order of arrival.
    running: Vec<Sequence<T>>,
    /// Their blocks are being filled by a peer.
    pulling: Vec<Sequence<T>>,
    born: Vec<Sequence<T>>,
    preempted_total: u64,
}

/// How many sequences are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Not started, or put back.
    pub waiting: usize,
    /// In the batch.
    pub running: usize,
    /// Being filled by a peer.
    pub pulling: usize,
    /// Times that a sequence had to give its blocks back, since the start.
    pub preempted_total: u64,
}

/// A sequence that left, with the blocks that hold its computed tokens.
#[derive(Debug)]
pub struct Left<T> {
    /// Which of its request's answers it was.
    pub index: u32,
    /// What the caller kept with it.
    pub payload: T,
    /// Its block table.
    pub blocks: Vec<Block>,
    /// How many of its tokens those blocks hold.
    pub computed: usize,
}

impl<T> Scheduler<T> {
    /// A scheduler without sequences.
    #[must_use]
    pub fn new(pool: Arc<Pool>, limits: Limits) -> Self {
        Self {
            pool,
            limits,
            arrivals: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            pulling: Vec::new(),
            born: Vec::new(),
            preempted_total: 0,
        }
    }

    /// Queues a sequence behind all others.
    pub fn add(&mut self, new: NewSequence<T>) {
        self.arrivals += 1;
        self.waiting.push_back(Sequence::new(new, self.arrivals));
    }

    /// The pool that its sequences live in.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }

    /// How many sequences are where.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            waiting: self.waiting.len(),
            running: self.running.len(),
            pulling: self.pulling.len(),
            preempted_total: self.preempted_total,
        }
    }

    /// Removes the sequences that `gone` names, wherever they are; their blocks return at once.
    pub fn abort(&mut self, gone: impl Fn(SeqId) -> bool) -> Vec<T> {
        let mut left = Vec::new();
        for list in [&mut self.running, &mut self.pulling] {
            left.extend(list.extract_if(.., |s| gone(s.id())).map(|s| s.payload));
        }
        let (leave, stay): (VecDeque<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|s| gone(s.id()));
        self.waiting = stay;
        left.extend(leave.into_iter().map(|s| s.payload));
        left
    }

    /// A running sequence, by its place in the plan's work.
    #[must_use]
    pub fn running(&self, slot: usize) -> &Sequence<T> {
        &self.running[slot]
    }

    /// As [`running`](Self::running), to be changed.
    pub fn running_mut(&mut self, slot: usize) -> &mut Sequence<T> {
        &mut self.running[slot]
    }

    /// Changes how many prompt tokens the next steps have.
    pub fn set_max_prompt_tokens(&mut self, tokens: usize) {
        self.limits.max_prompt_tokens = tokens;
    }

    /// What to compute in the next step, into `plan`, whose old content is dropped.
    pub fn plan(&mut self, plan: &mut Plan) {
        plan.begin(&self.limits);
        self.plan_decodes(plan);
        self.plan_prompts(plan);
        self.admit(plan);
    }

    /// The step was computed: its tokens' KV is in the blocks now, and full blocks may be shared.
    pub fn computed(&mut self, plan: &Plan) {
        for work in &plan.work {
            self.running[work.slot].advance(work.count, &self.pool);
        }
    }

    /// A sibling of the sequence at `slot`, which is about to get another token than `token`. It
    /// shares all blocks but the last unfinished one; without room for that copy it computes again.
    /// The last block of its table, if it has one.
    pub fn fork(&mut self, slot: usize, index: u32, token: u32, payload: T) -> Option<BlockId> {
        let mut child = self.running[slot].fork(index, payload);
        let unique = child.own_last_block(&self.pool);
        child.push(token);
        if unique.is_err() {
            child.release();
        }
        let last = child.block_ids().last().copied();
        self.born.push(child);
        last
    }

    /// Removes the sequences for which `finished` holds, and lets forked ones join. Slots of the
    /// last plan mean nothing afterwards.
    pub fn settle(&mut self, mut finished: impl FnMut(&mut Sequence<T>) -> bool) -> Vec<Left<T>> {
        let mut left: Vec<_> = self.running.extract_if(.., &mut finished).collect();
        left.extend(self.born.extract_if(.., finished));
        while let Some(child) = self.born.pop() {
            if child.has_blocks() {
                self.insert_running(child);
            } else {
                self.waiting.push_front(child);
            }
        }
        left.into_iter().map(Sequence::leave).collect()
    }

    fn insert_running(&mut self, sequence: Sequence<T>) {
        let at = self.running.partition_point(|s| s.order() < sequence.order());
        self.running.insert(at, sequence);
    }

    /// A sequence whose blocks a peer fills.
    pub fn pulling_mut(&mut self, id: SeqId) -> Option<&mut Sequence<T>> {
        self.pulling.iter_mut().find(|s| s.id() == id)
    }

    /// A pull ended. With `filled` the sequence goes on from there, else it computes all itself.
    /// False if the sequence is gone.
    pub fn pulled(&mut self, id: SeqId, filled: bool) -> bool {
        let Some(at) = self.pulling.iter().position(|s| s.id() == id) else { return false };
        let mut sequence = self.pulling.remove(at);
        sequence.end_pull(filled, &self.pool);
        self.insert_running(sequence);
        true
    }

    /// One token each for those that only lack one.
    fn plan_decodes(&mut self, plan: &mut Plan) {
        let mut slot = 0;
        while slot < self.running.len() {
            if self.running[slot].pending() == 1 && plan.has_room() && self.make_room(slot) {
                plan.push_decode(slot, &self.running[slot]);
            }
            slot += 1;
        }
    }

    /// Sees to a block for the next token of `slot`; takes it from the youngest if it must. False
    /// if `slot` itself was the youngest.
    fn make_room(&mut self, slot: usize) -> bool {
        while self.running[slot].needs_block(&self.pool) {
            match self.pool.allocate(1) {
                Ok(blocks) => self.running[slot].add_blocks(blocks),
                Err(_) => {
                    self.put_back_youngest();
                    if slot == self.running.len() {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn put_back_youngest(&mut self) {
        if let Some(mut youngest) = self.running.pop() {
            youngest.release();
            self.waiting.push_front(youngest);
            self.preempted_total += 1;
        }
    }

    /// Chunks of what is left of the prompts that have started.
    fn plan_prompts(&self, plan: &mut Plan) {
        for (slot, sequence) in self.running.iter().enumerate() {
            if sequence.pending() > 1 {
                plan.push_prompt(slot, sequence);
            }
        }
    }
}
