//! Address ranges with an owner each: a map from disjoint ranges to values.
//!
//! Pure. What is inserted last wins, what is removed is handed back in pieces, so that a failed
//! syscall can be undone and a move can be replayed.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint half-open ranges of addresses, each with a value.
#[derive(Debug, Clone)]
pub struct Intervals<V> {
    /// By start: end and value.
    ranges: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for Intervals<V> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new() }
    }
}

/// A range with its value.
pub type Piece<V> = (Range<u64>, V);

impl<V: Copy> Intervals<V> {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a range to `value`; whatever owned parts of it loses them and is handed back.
    pub fn insert(&mut self, range: Range<u64>, value: V) -> Vec<Piece<V>> {
        if range.start >= range.end {
            return Vec::new();
        }
        let lost = self.remove(range.clone());
        self.ranges.insert(range.start, (range.end, value));
        lost
    }

    /// Takes a range away; the pieces that were there are handed back, lowest first.
    pub fn remove(&mut self, range: Range<u64>) -> Vec<Piece<V>> {
        let mut taken = Vec::new();
        if range.start >= range.end {
            return taken;
        }
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.ranges.range(range).map(|(s, _)| *s).collect();
        for start in starts {
            if let Some((end, value)) = self.ranges.remove(&start) {
                taken.push((start..end, value));
            }
        }
        taken
    }

    /// The pieces within a range, clipped to it.
    pub fn within(&self, range: Range<u64>) -> Vec<Piece<V>> {
        let first = self.ranges.range(..range.start).next_back().map_or(range.start, |(s, _)| *s);
        self.ranges
            .range(first..range.end.max(first))
            .map(|(s, (e, v))| ((*s).max(range.start)..(*e).min(range.end), *v))
            .filter(|(r, _)| r.start < r.end)
            .collect()
    }

    /// The value at an address.
    pub fn at(&self, address: u64) -> Option<V> {
        let (_, (end, value)) = self.ranges.range(..=address).next_back()?;
        (address < *end).then_some(*value)
    }

    /// Every piece, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Piece<V>> + '_ {
        self.ranges.iter().map(|(s, (e, v))| (*s..*e, *v))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Makes `at` a boundary.
    fn split(&mut self, at: u64) {
        let Some((start, (end, value))) = self.ranges.range(..at).next_back() else {
            return;
        };
        let (start, end, value) = (*start, *end, *value);
        if end > at {
            self.ranges.insert(start, (at, value));
            self.ranges.insert(at, (end, value));
        }
    }
}
