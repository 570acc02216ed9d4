//! Who has which block: the book-keeping behind the pool's lock.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::{ChainHash, OutOfBlocks};

/// Blocks by state; the first three add up to the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nobody's, without content.
    pub free: usize,
    /// Nobody's, with content that a prefix may find again.
    pub cached: usize,
    /// Referenced: by sequences, leases or transfers.
    pub used: usize,
    /// Cached blocks whose room was taken, since the start.
    pub evicted_total: u64,
}

/// Everything the pool knows of its blocks. Its size is fixed by their number: index and idle set
/// hold at most one entry a block.
#[derive(Debug)]
pub(crate) struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashMap<[u8; 32], u32>,
    /// Published blocks without a reference, in the order in which they are evicted.
    idle: BTreeSet<Idle>,
    /// Advances whenever blocks are handed out: blocks dropped between two hand-outs count as left
    /// at the same time, and then the deepest go first, since a child without its parent is useless.
    epoch: u64,
    evicted: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    references: u32,
    published: Option<ChainHash>,
    /// Some of its layers were not filled: fit for the sequence that it was pulled for, not for
    /// another that starts earlier.
    partial: bool,
    left_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Idle {
    left_at: u64,
    depth: Reverse<u32>,
    id: u32,
}

impl State {
    pub(crate) fn new(blocks: u32) -> Self {
        Self {
            slots: vec![Slot::default(); blocks as usize],
            // Popped from the end: the first blocks are handed out first.
            free: (0..blocks).rev().collect(),
            index: HashMap::with_capacity(blocks as usize),
            idle: BTreeSet::new(),
            epoch: 0,
            evicted: 0,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let (free, cached) = (self.free.len(), self.idle.len());
        let used = self.slots.len() - free - cached;
        Counts { free, cached, used, evicted_total: self.evicted }
    }

    /// Takes `wanted` blocks, or none.
    pub(crate) fn take(&mut self, wanted: usize) -> Result<Vec<u32>, OutOfBlocks> {
        let available = self.free.len() + self.idle.len();
        if wanted > available {
            return Err(OutOfBlocks { wanted, available, blocks: self.slots.len() });
        }
        self.epoch += 1;
        Ok((0..wanted).map_while(|_| self.take_one()).collect())
    }

    fn take_one(&mut self) -> Option<u32> {
        let id = self.free.pop().or_else(|| self.evict())?;
        self.slots[id as usize].references = 1;
        Some(id)
    }

    fn evict(&mut self) -> Option<u32> {
        let id = self.idle.pop_first()?.id;
        self.withdraw(id);
        self.evicted += 1;
        Some(id)
    }

    /// Finds a published block, and counts a reference to it.
    pub(crate) fn find(&mut self, hash: &ChainHash) -> Option<u32> {
        let id = *self.index.get(&hash.digest)?;
        self.share(id);
        Some(id)
    }

    pub(crate) fn advance(&mut self) {
        self.epoch += 1;
    }

    pub(crate) fn share(&mut self, id: u32) {
        if self.slots[id as usize].references == 0 {
            self.idle.remove(&self.idle_key(id));
        }
        self.slots[id as usize].references += 1;
    }

    pub(crate) fn give_back(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        slot.left_at = self.epoch;
        if slot.published.is_some() {
            self.idle.insert(self.idle_key(id));
        } else {
            slot.partial = false;
            self.free.push(id);
        }
    }

    /// Makes a block findable. False if it is partial, or another block already bears the hash.
    pub(crate) fn publish(&mut self, id: u32, hash: ChainHash) -> bool {
        if self.slots[id as usize].partial {
            return false;
        }
        if let Some(&known) = self.index.get(&hash.digest) {
            return known == id;
        }
        self.withdraw(id);
        self.index.insert(hash.digest, id);
        self.slots[id as usize].published = Some(hash);
        true
    }

    /// Makes a block unfindable.
    pub(crate) fn withdraw(&mut self, id: u32) {
        if let Some(hash) = self.slots[id as usize].published.take() {
            self.index.remove(&hash.digest);
        }
    }

    pub(crate) fn mark_partial(&mut self, id: u32) {
        self.withdraw(id);
        self.slots[id as usize].partial = true;
    }

    pub(crate) fn is_partial(&self, id: u32) -> bool {
        self.slots[id as usize].partial
    }

    pub(crate) fn is_unique(&self, id: u32) -> bool {
        self.slots[id as usize].references == 1
    }

    fn idle_key(&self, id: u32) -> Idle {
        let slot = &self.slots[id as usize];
        let depth = slot.published.as_ref().map_or(0, |hash| hash.depth);
        Idle { left_at: slot.left_at, depth: Reverse(depth), id }
    }
}
