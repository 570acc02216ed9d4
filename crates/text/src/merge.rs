//! Joining neighbours, best pair first: the loop that BPE and SentencePiece share.
//!
//! A heap of candidate pairs and a doubly linked list of symbols: `n log n` in a fragment's
//! length, however long its words are. A candidate is never removed when one of its sides changes;
//! it is recognised as stale when it comes up, by the length that it was made for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A run of bytes that has been joined so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub start: u32,
    /// In bytes; 0 once it was joined into the symbol before it.
    pub len: u32,
    /// What [`Pairs`] knows it by.
    pub id: u32,
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Which neighbours may be joined.
pub(crate) trait Pairs {
    /// The priority of joining two neighbours (lowest first) and the id of the result.
    fn join(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)>;
}

/// Ordered by priority, then from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    len: u32,
    id: u32,
}

/// Working memory, kept from word to word.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new text.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Adds the next symbol of the text.
    pub fn push(&mut self, start: usize, len: usize, id: u32) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let prev = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start: start as u32, len: len as u32, id, prev, next: NONE });
    }

    /// Joins until nothing can be joined; what is left, in order.
    pub fn run(&mut self, text: &[u8], pairs: &impl Pairs) -> impl Iterator<Item = Symbol> {
        for right in 1..self.symbols.len() as u32 {
            self.consider(text, pairs, right - 1, right);
        }
        while let Some(Reverse(candidate)) = self.heap.pop() {
            let (left, right) = (self.at(candidate.left), self.at(candidate.right));
            if left.len == 0 || right.len == 0 || left.len + right.len != candidate.len {
                continue;
            }
            self.join(candidate);
            let left = self.at(candidate.left);
            self.consider(text, pairs, left.prev, candidate.left);
            self.consider(text, pairs, candidate.left, left.next);
        }
        self.symbols.iter().copied().filter(|symbol| symbol.len > 0)
    }

    fn at(&self, index: u32) -> Symbol {
        self.symbols[index as usize]
    }

    fn consider(&mut self, text: &[u8], pairs: &impl Pairs, left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (self.at(left), self.at(right));
        if let Some((priority, id)) = pairs.join(text, &l, &r) {
            let len = l.len + r.len;
            self.heap.push(Reverse(Candidate { priority, left, right, len, id }));
        }
    }

    fn join(&mut self, Candidate { left, right, len, id, .. }: Candidate) {
        let next = self.at(right).next;
        self.symbols[right as usize].len = 0;
        let joined = &mut self.symbols[left as usize];
        (joined.len, joined.id, joined.next) = (len, id, next);
        if next != NONE {
            self.symbols[next as usize].prev = left;
        }
    }
}
