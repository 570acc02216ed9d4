//! Objects of Python's are followed: some of each stack, from the burst that saw them on.

use std::collections::HashMap;

use super::{Sample, Samples};
use crate::account::StackId;
use crate::followed::{Class, Followed};
use crate::marks::Mark;

/// An odd number that moves addresses apart (2^64 by the golden ratio).
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Sample {
    /// Whether it is an object of Python's for certain, and not only what one is put into.
    pub fn is_object(&self) -> bool {
        self.bytes == OBJECT
    }

    /// Whether it is a block that an inlined copy of the allocator took, of anything.
    pub fn is_block(&self) -> bool {
        self.bytes == BLOCK
    }
}

/// For how many bytes the probes of [`crate::allocators::Give::Object`] and [`crate::allocators::Ask::Taken`]
/// say that an object stands, and a block.
const OBJECT: u64 = 1;
const BLOCK: u64 = 2;
/// What the cycle collector keeps before an object, in bytes.
const LINKS: u64 = 16;

impl Samples {
    /// An object was made at an address: the memory that was given for it is its own, behind the collector's
    /// links. Or a block was taken: an object that was in it has ended.
    pub(super) fn becomes(&mut self, address: u64, bytes: u64) {
        let other = match bytes {
            OBJECT => address.wrapping_sub(LINKS),
            BLOCK => address.wrapping_add(LINKS),
            _ => return,
        };
        let is_object = bytes == OBJECT;
        if self.tracked.get(&other).is_some_and(|was| was.is_object() != is_object) {
            self.died(other);
        }
    }

    /// All that were looked at and of which no end was seen, by address.
    pub fn marked(&self) -> Vec<(u64, Mark)> {
        self.tracked().filter_map(|(address, sample)| Some((address, sample.mark?))).collect()
    }

    /// Those of the last burst, and some of those before, others each time. What was not looked at while the
    /// burst lasted is forgotten: it may be another by now, unseen.
    pub fn glanced(&mut self, before: usize) -> Vec<(u64, Mark)> {
        let mut all = Vec::new();
        for (address, ..) in &self.births {
            match self.tracked.get(address) {
                Some(Sample { mark: Some(mark), burst, .. }) if *burst == self.burst => {
                    all.push((*address, *mark));
                }
                Some(sample) if sample.mark.is_none() => _ = self.tracked.remove(address),
                _ => {}
            }
        }
        all.sort_unstable_by_key(|(address, _)| *address);
        all.dedup_by_key(|(address, _)| *address);
        let older = self.tracked.iter().filter(|(_, s)| s.burst != self.burst).skip(self.turn);
        let older = older.filter_map(|(address, sample)| Some((*address, sample.mark?)));
        let length = all.len();
        all.extend(older.take(before));
        self.turn = if all.len() < length + before { 0 } else { self.turn + before };
        all
    }

    /// Of what this burst saw until a time, and was not looked at, so many of each stack: each stands for
    /// others, which are forgotten.
    pub fn thin(&mut self, until_ns: u64, most: usize) -> Vec<u64> {
        let mut by: HashMap<StackId, Vec<u64>> = HashMap::new();
        for (address, ..) in self.births[self.thinned..].iter().filter(|b| b.2 <= until_ns) {
            let new =
                self.tracked.get(address).filter(|s| s.mark.is_none() && s.time_ns <= until_ns);
            if let Some(sample) = new {
                by.entry(sample.stack).or_default().push(*address);
            }
        }
        self.thinned += self.births[self.thinned..].partition_point(|b| b.2 <= until_ns);
        let mut kept = Vec::new();
        for mut addresses in by.into_values() {
            addresses.sort_unstable_by_key(|address| (address.wrapping_mul(SCATTER), *address));
            addresses.dedup();
            let stands_for = addresses.len() as f64 / most.min(addresses.len()) as f64;
            for (place, address) in addresses.into_iter().enumerate() {
                match self.tracked.get_mut(&address) {
                    Some(sample) if place < most => {
                        sample.pieces = stands_for;
                        kept.push(address);
                    }
                    _ => _ = self.tracked.remove(&address),
                }
            }
        }
        kept
    }

    /// By stack and class, what became of the objects given before a time, as far as looks told.
    pub fn followed(&self, until_ns: u64) -> HashMap<(StackId, Class), Followed> {
        let mut all: HashMap<(StackId, Class), Followed> = HashMap::new();
        for (key, dead) in &self.found {
            all.entry(*key).or_default().dead = *dead;
        }
        for sample in self.tracked.values().filter(|s| s.time_ns <= until_ns) {
            let Some(mark) = &sample.mark else { continue };
            let followed = all.entry((sample.stack, mark.class())).or_default();
            followed.add(sample.pieces, !sample.is_sure, sample.time_ns);
        }
        all
    }

    /// What is known of an allocation.
    pub fn sample(&self, address: u64) -> Option<&Sample> {
        self.tracked.get(&address)
    }

    /// Nobody can say any more what became of it.
    pub fn forget(&mut self, address: u64) {
        self.tracked.remove(&address);
    }

    /// Of each marked block the allocation that was seen in it last.
    pub fn latest(&self) -> HashMap<u64, u64> {
        let mut latest: HashMap<u64, (u64, u64)> = HashMap::new();
        for (address, sample) in self.tracked() {
            let Some(mark) = &sample.mark else { continue };
            let last = latest.entry(mark.block.0).or_default();
            *last = (*last).max((sample.time_ns, address));
        }
        latest.into_iter().map(|(block, (_, address))| (block, address)).collect()
    }

    /// A look at an object: what marks it now.
    pub fn saw(&mut self, address: u64, mark: Mark) {
        if let Some(sample) = self.tracked.get_mut(&address) {
            sample.mark = Some(mark);
        }
    }

    /// A look at an object knew it again.
    pub fn is_sure(&mut self, address: u64) {
        if let Some(sample) = self.tracked.get_mut(&address) {
            sample.is_sure = true;
        }
    }

    /// A look did not find an object any more.
    pub fn died(&mut self, address: u64) {
        if let Some(Sample { stack, mark: Some(mark), pieces, .. }) = self.tracked.remove(&address)
        {
            *self.found.entry((stack, mark.class())).or_default() += pieces;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Given;

    const LEAK: StackId = 1;
    const CHURN: StackId = 2;
    const SEEN: Mark = Mark { block: (0, 64), words: [1, 4096, 3, 0, 0, 0, 0, 0], head: Some(0) };

    fn burst(samples: &mut Samples, at: u64, count: u64, stack: StackId) {
        for n in 0..count {
            let given = Given { bytes: 1, size: 1 };
            samples.given(at + n * 64, given, 0, stack, at + n);
        }
    }

    #[test]
    fn some_of_each_stack_stand_for_all_that_a_burst_saw() {
        let mut samples = Samples::default();
        samples.begin();
        burst(&mut samples, 1 << 20, 5, LEAK);
        burst(&mut samples, 1 << 21, 100, CHURN);
        assert_eq!(samples.thin(u64::MAX, 10).len(), 15);
        let of = |stack| samples.tracked().filter(move |(_, s)| s.stack == stack);
        assert_eq!(of(LEAK).map(|(_, s)| s.pieces).sum::<f64>(), 5.0);
        assert!((of(CHURN).map(|(_, s)| s.pieces).sum::<f64>() - 100.0).abs() < 1e-9);
        assert!(samples.thin(u64::MAX, 10).is_empty(), "each is marked once");
    }

    /// The memory that an object is made of begins before it; who was there in an earlier burst has ended.
    #[test]
    fn an_object_takes_the_place_of_the_memory_that_was_given_for_it() {
        let (mut samples, block) = (Samples::default(), 1 << 20);
        let give = |samples: &mut Samples, at, bytes, stack| {
            samples.given(at, Given { bytes, size: bytes }, 0, stack, at);
        };
        samples.begin();
        give(&mut samples, block, 2, CHURN);
        samples.saw(block, SEEN);
        samples.begin();
        give(&mut samples, block + 16, 1, LEAK);
        let left: Vec<_> = samples.tracked().map(|(at, s)| (at, s.stack)).collect();
        assert_eq!(left, [(block + 16, LEAK)]);
        assert_eq!(samples.followed(u64::MAX)[&(CHURN, SEEN.class())].dead, 1.0);
        give(&mut samples, block, 2, CHURN);
        let left: Vec<_> = samples.tracked().map(|(at, s)| (at, s.stack)).collect();
        assert_eq!(left, [(block, CHURN)], "the block was given again");
    }

    #[test]
    fn what_was_not_marked_in_time_is_forgotten_and_what_died_is_counted() {
        let mut samples = Samples::default();
        samples.begin();
        burst(&mut samples, 1 << 20, 4, LEAK);
        for address in samples.thin((1 << 20) + 1, 10) {
            samples.saw(address, SEEN);
        }
        assert_eq!(samples.glanced(10).len(), 2);
        assert_eq!(samples.tracked().count(), 2);
        samples.died(1 << 20);
        samples.is_sure((1 << 20) + 64);
        let followed = &samples.followed(u64::MAX)[&(LEAK, SEEN.class())];
        assert_eq!((followed.alive, followed.dead, followed.doubtful), (1.0, 1.0, 0.0));
    }

    #[test]
    fn those_of_before_are_looked_at_in_turns() {
        let mut samples = Samples::default();
        for at in 1..=5 {
            samples.begin();
            burst(&mut samples, at << 20, 2, LEAK);
            samples.thin(u64::MAX, 10).into_iter().for_each(|address| samples.saw(address, SEEN));
        }
        let mut seen: Vec<u64> = Vec::new();
        for _ in 0..3 {
            seen.extend(samples.glanced(3).into_iter().map(|(address, _)| address));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10);
    }
}
