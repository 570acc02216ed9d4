//! Looks at objects of CPython's that bursts saw: whether each is still the one that was seen.
//!
//! A pool gives what was freed last, so a block is soon another's, often of the same type. One look says
//! little: an object is followed from look to look, at first within milliseconds. What is still there after
//! seconds is known again by the numbers that it holds ([`crate::digest`]), or stays in doubt.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use plumb_target::{Memory, Process, ReadMemory};

use crate::digest::{self, Common};
use crate::events;
use crate::marks::{MARK_WORDS, Mark, is_count};
use crate::pools::{FreeBlocks, Pools};
use crate::python::census::name_of_type;
use crate::python::constructors::KEPT_TYPES;
use crate::samples::{Fate, Sample, Samples};

/// An object is made by then: who gave its memory has returned, and it holds what it is to hold, in
/// nanoseconds.
const MADE_NS: u64 = 200_000;
/// How long arenas are taken for all that there are.
const POOLS: Duration = Duration::from_secs(5);
/// Objects of one stack that are marked at once.
const MOST: usize = 12;
/// Objects of older bursts at which each look at the last one's looks too.
const OLDER: usize = 128;
/// What is still there after so long is known again, or not, in nanoseconds.
const LONG_NS: u64 = 2_000_000_000;
/// Objects known again at each look at all.
const KNOWN_AGAIN: usize = 4096;
/// Types that are remembered.
const KNOWN_MAX: usize = 1 << 18;
/// Where in its block an object's count of references may stand: at once, behind the collector's links,
/// and behind those and what a class adds.
const HEADS: [usize; 3] = [0, 2, 4];
const BYTES: usize = MARK_WORDS * 8;

/// What is known of one process's objects.
#[derive(Debug)]
pub struct Objects {
    process: Process,
    seen: Seen,
    pools: Option<Pools>,
    /// When arenas are looked for again: objects in new ones are known by the heads of their pools.
    next_pools: Instant,
    common: Common,
    /// What each held when it was first seen.
    held: HashMap<u64, Vec<u64>>,
    /// What is at an address.
    types: HashMap<u64, Kind>,
}

/// Of which objects it is seen who makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Of all whose memory the allocator gives.
    Given,
    /// Of those that some functions make; not what is made of memory that was asked for.
    Made,
    /// Of all whose memory a copy of the allocator takes; of those whose memory is kept for the next of their
    /// type, as in `Made`.
    Taken,
}

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No type.
    None,
    /// A type.
    Type,
    /// One whose freed objects are kept for the next.
    Kept,
}

/// Which samples are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those of the last burst, cheaply.
    Last,
    /// All.
    All,
}

impl Objects {
    /// Of a process of which nothing is known yet.
    pub fn of(process: &Process, seen: Seen) -> Self {
        Self {
            process: *process,
            seen,
            pools: None,
            next_pools: Instant::now(),
            common: Common::default(),
            held: HashMap::new(),
            types: HashMap::new(),
        }
    }

    /// Finds where the objects are, before they are looked at in a hurry.
    pub fn prepare(&mut self) {
        if self.pools.is_none() || self.next_pools < Instant::now() {
            self.pools = Pools::of(&self.process);
            self.next_pools = Instant::now() + POOLS;
        }
    }

    /// Marks what was seen a moment ago, while the burst lasts: if it had gone meanwhile, and another come,
    /// that would have been seen. Where that is not certain any more, those of this age at most.
    pub fn mark(&mut self, samples: &mut Samples, age: Option<Duration>) {
        let Some(pools) = self.pools.take() else { return };
        let now_ns = events::now_ns();
        let mut new = samples.thin(now_ns.saturating_sub(MADE_NS), MOST);
        let least_ns = age.map_or(0, |age| now_ns.saturating_sub(age.as_nanos() as u64));
        new.retain(|address| samples.sample(*address).is_some_and(|s| s.time_ns >= least_ns));
        let blocks = pools.blocks(&new);
        let starts: Vec<u64> = blocks.iter().map(|block| block.map_or(0, |(at, _)| at)).collect();
        let mut bytes = vec![0; starts.len() * BYTES];
        pools.memory().read_scattered(&starts, BYTES, &mut bytes);
        let mut marks = Vec::new();
        for ((address, block), bytes) in new.iter().zip(blocks).zip(bytes.chunks_exact(BYTES)) {
            let is_object = samples.sample(*address).is_some_and(Sample::is_object);
            let Some((at, size)) = block else {
                samples.forget(*address);
                continue;
            };
            let words = words_of(bytes, size);
            let head = if is_object {
                Some(((address - at) / 8) as usize)
            } else {
                self.head(pools.memory(), &words)
            };
            // Somebody unseen was given the memory already, and made an object of it.
            if self.seen == Seen::Made && !is_object && head.is_some() {
                samples.forget(*address);
                continue;
            }
            // A part of an object looks like all others, and what was kept for the next of its type is somebody
            // else's by now: those who make them tell more.
            let says_little = |head: Option<usize>| {
                head.is_none_or(|head| self.types.get(&words[head + 1]) == Some(&Kind::Kept))
            };
            if samples.sample(*address).is_some_and(Sample::is_block) && says_little(head) {
                samples.forget(*address);
                continue;
            }
            let mark = Mark { block: (at, size), words, head };
            samples.saw(*address, mark);
            // Whoever has the block by now need not have an object where this one began.
            if head.is_some_and(|head| !self.has_object(pools.memory(), &words, head)) {
                samples.died(*address);
            } else {
                marks.push((*address, mark));
            }
        }
        let (addresses, marks): (Vec<u64>, Vec<Mark>) = marks.into_iter().unzip();
        let all = digest::numbers(pools.memory(), &marks);
        for (address, numbers) in addresses.into_iter().zip(all) {
            self.common.add(&numbers);
            self.held.insert(address, numbers);
        }
        self.pools = Some(pools);
    }

    /// Looks which of those that were seen are still there.
    pub fn look(&mut self, samples: &mut Samples, which: Which) {
        self.prepare();
        let Some(pools) = self.pools.take() else { return };
        let mut free = FreeBlocks::default();
        let marked = match which {
            Which::Last => samples.glanced(OLDER),
            Which::All => samples.marked(),
        };
        let latest = if which == Which::All { samples.latest() } else { HashMap::new() };
        let blocks: Vec<u64> = marked.iter().map(|(_, mark)| mark.block.0).collect();
        let mut bytes = vec![0; blocks.len() * BYTES];
        pools.memory().read_scattered(&blocks, BYTES, &mut bytes);
        for ((address, mark), bytes) in marked.into_iter().zip(bytes.chunks_exact(BYTES)) {
            let words = words_of(bytes, mark.block.1);
            let is_others = latest.get(&mark.block.0).is_some_and(|last| *last != address)
                // What was asked for as memory has ended where somebody unseen made an object of it: one's own
                // is made at once.
                || mark.head.is_none() && self.head(pools.memory(), &words).is_some();
            // Of what is no object only its pool knows.
            let is_asked = mark.head.is_none() && which == Which::All;
            if !mark.may_be(&words)
                || is_others
                || is_asked && pools.fate(address, &mut free) == Fate::Freed
            {
                samples.died(address);
            } else {
                samples.saw(address, Mark { words, ..mark });
            }
        }
        if which == Which::All {
            self.know_again(samples, pools.memory());
        }
        self.pools = Some(pools);
    }

    /// Looks which of those that have been there for long hold what they held.
    fn know_again(&mut self, samples: &mut Samples, memory: &Memory) {
        let now_ns = events::now_ns();
        self.held.retain(|address, _| samples.sample(*address).is_some());
        let old = samples.tracked().filter(|(_, s)| !s.is_sure && s.time_ns + LONG_NS < now_ns);
        let old = old.filter_map(|(address, sample)| Some((address, sample.mark?)));
        let (addresses, marks): (Vec<u64>, Vec<Mark>) = old.take(KNOWN_AGAIN).unzip();
        for (address, now) in addresses.iter().zip(digest::numbers(memory, &marks)) {
            if self.held.get(address).is_some_and(|then| self.common.tells(then, &now)) {
                samples.is_sure(*address);
            }
        }
    }

    /// What its interpreter calls the type at an address.
    pub fn name(&self, kind: u64) -> Option<String> {
        name_of_type(self.pools.as_ref()?.memory(), kind)
    }

    /// Where in a block an object begins, if one does.
    fn head(&mut self, memory: &Memory, words: &[u64; MARK_WORDS]) -> Option<usize> {
        HEADS.into_iter().find(|head| self.has_object(memory, words, *head))
    }

    fn has_object(&mut self, memory: &Memory, words: &[u64; MARK_WORDS], head: usize) -> bool {
        let (count, kind) = (words[head], words[head + 1]);
        if !is_count(count) || kind < 1 << 16 || !kind.is_multiple_of(8) {
            return false;
        }
        if self.types.len() > KNOWN_MAX {
            self.types.clear();
        }
        let found = self.types.entry(kind).or_insert_with(|| match name_of_type(memory, kind) {
            None => Kind::None,
            Some(name) if KEPT_TYPES.contains(&name.as_str()) => Kind::Kept,
            Some(_) => Kind::Type,
        });
        *found != Kind::None
    }
}

/// The words of a block of so many bytes.
fn words_of(bytes: &[u8], size: u64) -> [u64; MARK_WORDS] {
    let mut words = [0; MARK_WORDS];
    let within = bytes.len().min(size as usize);
    words
        .iter_mut()
        .zip(plumb_target::memory::words(&bytes[..within]))
        .for_each(|(w, read)| *w = read);
    words
}
