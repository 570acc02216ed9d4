//! Chunks that are free although their neighbours call them live: fastbins and per-thread caches.

use std::collections::HashSet;
use std::time::Instant;

use super::chunks::Chunk;
use super::{Arena, Segment};
use crate::{Range, ReadMemory};

const FASTBINS: u64 = 10;
const FLAGS: u64 = 7;
/// No chain of free chunks is followed further; a thread's cache holds 7 a bin unless tuned.
const LONGEST_CHAIN: usize = 1 << 22;
const LONGEST_CACHE_CHAIN: usize = 65_536;

/// The forms of `tcache_perthread_struct`, told by the size of their chunk: the width of a count, the
/// number of bins. 2.30 to 2.41, 2.26 to 2.29, and 2.42, whose last 12 bins hold large chunks.
struct Cache {
    chunk: u64,
    count: usize,
    bins: usize,
    /// Whether counts say how many chunks wait; 2.42 counts down instead.
    counts_up: bool,
}

const CACHES: [Cache; 3] = [
    Cache { chunk: 0x290, count: 2, bins: 64, counts_up: true },
    Cache { chunk: 0x250, count: 1, bins: 64, counts_up: true },
    Cache { chunk: 0x300, count: 2, bins: 76, counts_up: false },
];
const SMALL_BINS: usize = 64;
/// Candidates that are read at once.
const BATCH: usize = 256;

/// Notes the live chunks that may be a thread's cache.
#[derive(Default)]
pub(super) struct TcacheFinder {
    candidates: Vec<(u64, usize)>,
}

/// More threads than a process can have.
const MAX_CANDIDATES: usize = 1 << 20;

impl TcacheFinder {
    pub fn meet(&mut self, chunk: &Chunk) {
        let form = CACHES.iter().position(|cache| cache.chunk == chunk.size);
        if let Some(form) = form.filter(|_| self.candidates.len() < MAX_CANDIDATES) {
            self.candidates.push((chunk.address, form));
        }
    }

    pub fn take(&mut self, other: Self) {
        self.candidates.extend(other.candidates);
    }

    /// The chunks that wait in the caches among the candidates. A candidate counts as a cache only
    /// where every one of its lists is what it should be.
    pub fn cached_chunks(
        &self,
        memory: &impl ReadMemory,
        segments: &[&Segment],
        seen: &mut HashSet<u64>,
        until: Instant,
    ) -> Vec<Range> {
        let mut found = Vec::new();
        for (index, form) in CACHES.iter().enumerate() {
            let addresses: Vec<u64> = self
                .candidates
                .iter()
                .filter(|(_, of)| *of == index)
                .map(|(address, _)| address + 16)
                .collect();
            let length = form.bins * (form.count + 8);
            let mut bytes = vec![0; BATCH * length];
            for addresses in addresses.chunks(BATCH) {
                if Instant::now() > until {
                    return found;
                }
                memory.read_scattered(addresses, length, &mut bytes);
                for bytes in bytes.chunks_exact(length).take(addresses.len()) {
                    let chunks = chunks_of(memory, bytes, form, segments).unwrap_or_default();
                    found.extend(chunks.into_iter().filter(|chunk| seen.insert(chunk.start)));
                }
            }
        }
        found
    }
}

/// The chunks of a cache, if that is what these bytes are.
fn chunks_of(
    memory: &impl ReadMemory,
    bytes: &[u8],
    form: &Cache,
    segments: &[&Segment],
) -> Option<Vec<Range>> {
    let (counts, entries) = bytes.split_at(form.bins * form.count);
    let counts = counts
        .chunks_exact(form.count)
        .map(|c| usize::from(c[0]) | c.get(1).map_or(0, |&high| usize::from(high) << 8));
    let lists: Vec<(usize, u64)> = counts.zip(crate::memory::words(entries)).collect();
    let small = &lists[..SMALL_BINS];
    // What is in memory already rules out all but real caches.
    let sound = small.iter().all(|&(count, entry)| {
        let points = segments.iter().any(|segment| segment.range.contains(&entry));
        (entry == 0 || points && entry % 16 == 0)
            && (!form.counts_up || (count == 0) == (entry == 0))
    });
    if !sound {
        return None;
    }
    let mut found = Vec::new();
    for (bin, &(count, entry)) in small.iter().enumerate().filter(|(_, list)| list.1 != 0) {
        let size = 32 + bin as u64 * 16;
        let limit = if form.counts_up { count } else { LONGEST_CACHE_CHAIN };
        let before = found.len();
        // A thread may take from the list meanwhile: what was followed so far is still cached.
        follow(memory, entry, 16, size, segments, limit.min(LONGEST_CACHE_CHAIN), &mut found);
        if found.len() == before {
            return None;
        }
    }
    Some(found)
}

/// The chunks that wait in the fastbins of all arenas: each bin a chain of one size.
pub(super) fn fast_chunks(
    memory: &impl ReadMemory,
    arenas: &[Arena],
    segments: &[&Segment],
    seen: &mut HashSet<u64>,
    until: Instant,
) -> Vec<Range> {
    let mut found = Vec::new();
    for arena in arenas {
        // The ten fastbins stand before `top` and `last_remainder`, which stand before the bins.
        let first = arena.bins.saturating_sub(16 + FASTBINS * 8);
        if first < arena.address {
            continue;
        }
        let Some(heads) = memory.words_at(first, FASTBINS as usize) else { continue };
        for (bin, &head) in heads.iter().enumerate().filter(|(_, head)| **head != 0) {
            if Instant::now() > until {
                return found;
            }
            let mut chain = Vec::new();
            let size = 32 + bin as u64 * 16;
            follow(memory, head, 0, size, segments, LONGEST_CHAIN, &mut chain);
            found.extend(chain.into_iter().filter(|chunk| seen.insert(chunk.start)));
        }
    }
    found
}

/// Follows a chain of free chunks of one size. `into_chunk` is how far the links point into their
/// chunk: 16 for caches, 0 for fastbins. Links are scrambled with their own address since 2.32; the
/// one that leads to a chunk of the right size is the right reading.
fn follow(
    memory: &impl ReadMemory,
    head: u64,
    into_chunk: u64,
    size: u64,
    segments: &[&Segment],
    limit: usize,
    found: &mut Vec<Range>,
) {
    let is_chunk = |link: u64| {
        let chunk = link.checked_sub(into_chunk)?;
        let inside = segments.iter().any(|segment| segment.range.contains(&chunk));
        let header = (inside && chunk % 16 == 0).then(|| memory.words_at(chunk + 8, 2))??;
        (header[0] & !FLAGS == size).then_some((chunk, header[1]))
    };
    let mut own = HashSet::new();
    let mut at = is_chunk(head);
    while let Some((chunk, next)) = at {
        if !own.insert(chunk) || own.len() > limit {
            return;
        }
        found.push(chunk..chunk + size);
        let place = chunk + 16;
        at = is_chunk(next ^ place >> 12).or_else(|| is_chunk(next));
    }
}
