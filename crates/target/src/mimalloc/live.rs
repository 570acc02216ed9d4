//! What is live of mimalloc's pages.
//!
//! A page of mimalloc's holds blocks of one size, counts those in use, and keeps the others in lists:
//! of those that may be given, of those that its thread freed, and of those that other threads freed.
//! `capacity = used + |free| + |local_free|`: a page whose lists lead through its own blocks and add up
//! to that is understood, whatever the version; one that does not is not (free lists are encoded in
//! secure builds). Of what other threads free, version 2 keeps one block a page in a list of the heap's.
//!
//! Layouts follow `types.h`: 2.0.0 to 2.1.2, 2.1.4 to 2.3, and 3.0 to 3.4.

use std::collections::HashMap;
use std::time::Instant;

use super::{Found, SLICE};
use crate::live::{TRIES, UNSETTLED, believed};
use crate::memory::{Cached, words};
use crate::{Range, ReadMemory, Residency};

/// No page is larger than this many words in any version.
const PAGE_WORDS: usize = 16;

/// Where fields stand in a page's record and in its heap's, by version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 2.0.0 to 2.1.2.
    First,
    /// 2.1.4 to 2.3.
    Second,
    /// 3.
    Third,
}

impl Layout {
    /// How large a record is in segments.
    fn record(self) -> u64 {
        if self == Self::First { 80 } else { 96 }
    }

    /// Where a heap keeps blocks that other threads freed.
    fn delayed(self) -> Option<u64> {
        match self {
            Self::First => Some(8 + 129 * 8 + 75 * 24),
            Self::Second => Some(8),
            Self::Third => None,
        }
    }
}

/// A page, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    /// Its slices.
    area: Range,
    /// Its first block, as far as that is known.
    start: u64,
    block: u64,
    capacity: u64,
    used: u64,
    free: u64,
    local_free: u64,
    thread_free: u64,
    heap: u64,
}

impl Page {
    fn read(memory: &impl ReadMemory, record: u64, area: Range, layout: Layout) -> Option<Self> {
        let w = memory.words_at(record, PAGE_WORDS)?;
        let half = |word: usize, at: u32| w[word] >> (16 * at) & 0xffff;
        let (used, capacity, reserved, block, lists, heap, start) = match layout {
            Layout::First => {
                let (used, block) = (w[3] & 0xffff_ffff, w[3] >> 32);
                // Huge ones are as large as their slices.
                let block = if block >= 2 << 30 { area.end - area.start } else { block };
                let halves = (w[1] >> 16 & 0xffff, w[1] >> 32 & 0xffff);
                (used, halves.0, halves.1, block, [w[2], w[4], w[5] & !3], w[6], area.start)
            }
            Layout::Second => {
                let halves = (w[1] >> 16 & 0xffff, w[1] >> 32 & 0xffff);
                let lists = [w[2], w[3], w[7] & !3];
                (w[4] & 0xffff, halves.0, halves.1, w[5], lists, w[8], w[6])
            }
            Layout::Third => {
                let lists = [w[1], w[3], w[4] & !3];
                (half(2, 0), half(2, 1), half(2, 2), w[5], lists, 0, w[6])
            }
        };
        // Where another version does not say it, it is near.
        let start = if area.contains(&start) { start } else { area.start };
        let [free, local_free, thread_free] = lists;
        let sound = used <= capacity && capacity <= reserved && block < 1 << 46;
        let page = Self { area, start, block, capacity, used, free, local_free, thread_free, heap };
        sound.then_some(page)
    }

    /// Whether a block begins here.
    fn is_block(&self, at: u64, other: u64) -> bool {
        let apart = at.abs_diff(other);
        self.area.contains(&at) && self.block > 0 && apart.is_multiple_of(self.block)
    }

    /// Adds the blocks of a list to `blocks`; `None` where it leads astray.
    fn follow(&self, memory: &impl ReadMemory, first: u64, blocks: &mut Vec<u64>) -> Option<u64> {
        let (before, mut at) = (blocks.len(), first);
        while at != 0 {
            let other = blocks.first().copied().unwrap_or(at);
            if !self.is_block(at, other) || blocks.len() as u64 >= self.capacity {
                return None;
            }
            blocks.push(at);
            at = memory.u64_at(at)?;
        }
        Some((blocks.len() - before) as u64)
    }

    /// The blocks that are free, where its lists add up.
    fn free_blocks(&self, memory: &impl ReadMemory) -> Option<Vec<u64>> {
        let memory = Cached::new(memory);
        let mut blocks = Vec::new();
        let free = self.follow(&memory, self.free, &mut blocks)?;
        let local = self.follow(&memory, self.local_free, &mut blocks)?;
        let others = self.follow(&memory, self.thread_free, &mut blocks)?;
        (free + local + self.used == self.capacity && others <= self.used).then_some(blocks)
    }

    /// Resident bytes of what is live.
    fn live(&self, free: &[u64], residency: &Residency) -> u64 {
        let end = (self.start + self.capacity * self.block).min(self.area.end);
        let resident = residency.bytes_in(&(self.start..end));
        let free_bytes: u64 =
            free.iter().map(|at| residency.bytes_in(&(*at..at.saturating_add(self.block)))).sum();
        let blocks = self.capacity - (free.len() as u64).min(self.capacity);
        resident.saturating_sub(free_bytes).min(blocks * self.block)
    }
}

/// Where a page's record stands, and its slices.
struct Place {
    record: u64,
    area: Range,
}

/// Resident bytes that are live in each of the ranges; `None` where time is up or what is read is not
/// understood.
pub(super) fn in_use(
    memory: &impl ReadMemory,
    found: &Found,
    residency: &Residency,
    until: Instant,
) -> Option<Vec<u64>> {
    if found.is_arenas {
        let places = in_arenas(memory, &found.ranges, residency);
        return count(memory, found, &places, Layout::Third, residency, until);
    }
    [Layout::First, Layout::Second].into_iter().find_map(|layout| {
        let places = in_segments(memory, found, layout)?;
        count(memory, found, &places, layout, residency, until)
    })
}

fn count(
    memory: &impl ReadMemory,
    found: &Found,
    places: &[Place],
    layout: Layout,
    residency: &Residency,
    until: Instant,
) -> Option<Vec<u64>> {
    let mut pages: Vec<(Page, Vec<u64>)> = Vec::new();
    let (mut unsettled, mut understood) = (0, 0);
    for place in places {
        if Instant::now() > until {
            return None;
        }
        let read = || Page::read(memory, place.record, place.area.clone(), layout);
        let settled = (0..TRIES).find_map(|_| {
            let page = read()?;
            let free = page.free_blocks(memory)?;
            Some((page, free))
        });
        match settled {
            Some((page, free)) => {
                understood += u64::from(page.used > 0);
                pages.push((page, free));
            }
            None => unsettled += residency.bytes_in(&place.area),
        }
        // Another layout shows at once.
        if unsettled > UNSETTLED && understood == 0 {
            return None;
        }
    }
    pages.sort_unstable_by_key(|(page, _)| page.area.start);
    if let Some(at) = layout.delayed() {
        add_delayed(memory, &mut pages, at)?;
    }
    let mut live = vec![0; found.ranges.len()];
    for (page, free) in &pages {
        let range = found.ranges.partition_point(|range| range.end <= page.area.start);
        *live.get_mut(range)? += page.live(free, residency);
    }
    believed(live, &found.ranges, unsettled, residency).filter(|_| understood > 0)
}

/// Blocks that other threads freed and that the heaps' own threads have not seen yet.
fn add_delayed(memory: &impl ReadMemory, pages: &mut [(Page, Vec<u64>)], at: u64) -> Option<()> {
    let mut heaps: Vec<u64> = pages.iter().map(|(page, _)| page.heap).filter(|h| *h != 0).collect();
    heaps.sort_unstable();
    heaps.dedup();
    for heap in heaps {
        let mut block = memory.u64_at(heap.checked_add(at)?)?;
        let mut seen = 0;
        while block != 0 {
            let index = pages.partition_point(|(page, _)| page.area.end <= block);
            let (page, free) = pages.get_mut(index)?;
            let other = free.first().copied().unwrap_or(block);
            seen += 1;
            if !page.is_block(block, other) || seen > 1 << 22 {
                return None;
            }
            // It was taken from the list while that was read.
            if !free.contains(&block) && (free.len() as u64) < page.capacity {
                free.push(block);
            }
            block = memory.u64_at(block)?;
        }
    }
    Some(())
}

/// The records of a segment's pages follow its header, one a slice.
fn in_segments(memory: &impl ReadMemory, found: &Found, layout: Layout) -> Option<Vec<Place>> {
    // After the number of slices: those of the header, kind, number of records, thread.
    const FOLLOW: u64 = 5 * 8;
    let mut places = Vec::new();
    for (range, slices_at) in found.ranges.iter().zip(&found.slices_at) {
        let slices_at = (*slices_at)?;
        let header = memory.words_at(slices_at, 5)?;
        let (slices, own) = (header[0], header[1]);
        // Versions differ in the order of these two; a thread's name is an address.
        let entries =
            [header[3], header[4]].into_iter().find(|n| (1..=slices.max(1)).contains(n))?;
        let record = layout.record();
        let mut bytes = vec![0; usize::try_from(entries.min(4096) * record).ok()?];
        memory.read_exact(slices_at + FOLLOW, &mut bytes)?;
        let mut slice = own;
        while slice < entries.min(4096) {
            let at = slice * record;
            let fields = words(bytes.get(at as usize..(at + record) as usize)?);
            let (count, offset) = (fields[0] & 0xffff_ffff, fields[0] >> 32);
            let block = if layout == Layout::First { fields[3] >> 32 } else { fields[5] };
            if count == 0 || offset != 0 || slice + count > slices {
                return None;
            }
            if block > 0 {
                let start = range.start + slice * SLICE;
                let area = start..(start + count * SLICE).min(range.end.max(start));
                places.push(Place { record: slices_at + FOLLOW + at, area });
            }
            slice += count;
        }
    }
    Some(places)
}

/// Where a record says whose it is, in words: by version, and by whether free lists have keys.
const SAYS: [usize; 4] = [11, 12, 13, 14];
/// Tables of the largest arenas.
const MOST_TABLE: u64 = 64 << 20;
/// So many pages show which version it is.
const SOME: usize = 256;

/// The record of an arena's page says of which arena and slices it is: it stands at the first of them,
/// or in a table after the arena's header.
fn in_arenas(memory: &impl ReadMemory, arenas: &[Range], residency: &Residency) -> Vec<Place> {
    let mut places = HashMap::new();
    for arena in arenas {
        let slices = (arena.end - arena.start) / SLICE;
        let of = |words: &[u64]| {
            let (index, count) = (words[1] & 0xffff_ffff, words[1] >> 32);
            let sound = words[0] == arena.start && count > 0 && index + count <= slices;
            let start = arena.start + index * SLICE;
            sound.then(|| (index, start..start + count * SLICE))
        };
        // What an arena says of its size may be anything; what is resident is not.
        for start in resident_slices(arena, residency) {
            let slice = (start - arena.start) / SLICE;
            let Some(record) = memory.words_at(start, PAGE_WORDS) else { continue };
            let at = SAYS.iter().find_map(|at| of(&record[*at..*at + 2]));
            if let Some((_, area)) = at.filter(|(index, _)| *index == slice) {
                places.insert(area.start, Place { record: start, area });
            }
        }
        places
            .extend(in_table(memory, arena, residency, &of).into_iter().map(|p| (p.area.start, p)));
    }
    places.into_values().collect()
}

/// Where slices of an arena begin in resident memory, but for its header's.
fn resident_slices(arena: &Range, residency: &Residency) -> impl Iterator<Item = u64> {
    let within = residency.runs().iter().filter(|r| r.start < arena.end && r.end > arena.start);
    within.flat_map(|run| {
        let from = (run.start.max(arena.start) - arena.start).next_multiple_of(SLICE).max(SLICE);
        let to = run.end.min(arena.end);
        (arena.start + from..to).step_by(SLICE as usize)
    })
}

/// Records in a table after an arena's header.
fn in_table(
    memory: &impl ReadMemory,
    arena: &Range,
    residency: &Residency,
    of: &impl Fn(&[u64]) -> Option<(u64, Range)>,
) -> Vec<Place> {
    let slices = (arena.end - arena.start) / SLICE;
    let table = arena.start..arena.start + (slices * 128).min(MOST_TABLE) + (1 << 20);
    let mut said = Vec::new();
    for run in residency.runs().iter().filter(|r| r.start < table.end && r.end > table.start) {
        let (from, to) = (run.start.max(table.start), run.end.min(table.end));
        let mut bytes = vec![0; (to - from) as usize];
        let got = memory.read_at(from, &mut bytes);
        let pairs = words(&bytes[..got]);
        let says = (from..).step_by(8).zip(pairs.windows(2));
        said.extend(says.filter_map(|(at, pair)| Some((at, of(pair)?.1))));
    }
    let record = |says: u64, words: usize| says.saturating_sub(words as u64 * 8);
    let page = |at: u64, area: &Range| Page::read(memory, at, area.clone(), Layout::Third);
    // Which version it is, the blocks tell: most pages add up.
    let adds_up = |words: usize| {
        let some = said.iter().take(SOME);
        let pages = some.filter_map(|(says, area)| page(record(*says, words), area));
        pages.filter(|p| p.block > 0 && p.free_blocks(memory).is_some()).count()
    };
    let Some(words) = SAYS.into_iter().max_by_key(|words| adds_up(*words)) else {
        return Vec::new();
    };
    let places = said.into_iter().map(|(says, area)| Place { record: record(says, words), area });
    // Of what was given back nothing is left but whose it was.
    let is_page = |p: &Place| memory.u64_at(p.record + 40).is_some_and(|block| block > 0);
    places.filter(is_page).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::Pieces;

    const SEGMENT: u64 = 0x7f00_0200_0000;
    const SLICES_AT: u64 = SEGMENT + 0x200;
    const BLOCKS: u64 = SEGMENT + SLICE;
    const HEAP: u64 = 0x5000;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A segment of version 2 with one page of four blocks of 16 KiB, all resident: the first is in use,
    /// the second may be given, the third was freed by its thread, the fourth by another one, to the
    /// page's list or its heap's.
    fn memory(capacity: u64, to_heap: bool) -> Pieces {
        let block = |n: u64| BLOCKS + (n << 14);
        let mut header = vec![2, 1, 0, 2, 0x7f00_dead_b000];
        let mut own = vec![0; 12];
        (own[0], own[5]) = (1, 1);
        header.extend(own);
        let given = if to_heap { 0 } else { block(3) };
        let page =
            [1, 1 | capacity << 16 | 4 << 32, block(1), block(2), 2, 1 << 14, BLOCKS, given | 2];
        header.extend(page);
        header.extend([HEAP, 0, 0, 0, 0, 0, 0, 0]);
        let mut memory = Pieces::default();
        memory.put(SLICES_AT, bytes(&header));
        (0..4).for_each(|n| memory.put(block(n), bytes(&[0])));
        memory.put(HEAP, bytes(&[0, if to_heap { block(3) } else { 0 }]));
        memory
    }

    fn live(memory: &Pieces) -> Option<Vec<u64>> {
        let segment = SEGMENT..SEGMENT + 2 * SLICE;
        let ranges = std::iter::once(segment.clone()).collect();
        let found = Found { ranges, slices_at: vec![Some(SLICES_AT)], is_arenas: false };
        let residency = Residency::of(std::iter::once(segment));
        in_use(memory, &found, &residency, Instant::now() + Duration::from_secs(9))
    }

    #[test]
    fn blocks_in_no_list_are_live_whoever_freed_the_others() {
        assert_eq!(live(&memory(4, false)), Some(vec![1 << 14]));
        assert_eq!(live(&memory(4, true)), Some(vec![1 << 14]));
    }

    #[test]
    fn lists_that_do_not_add_up_are_not_understood() {
        assert_eq!(live(&memory(3, false)), None);
        let mut astray = memory(4, false);
        astray.put(BLOCKS + (1 << 14), bytes(&[BLOCKS + 8]));
        assert_eq!(live(&astray), None);
        let mut circle = memory(4, false);
        circle.put(BLOCKS + (2 << 14), bytes(&[BLOCKS + (2 << 14)]));
        assert_eq!(live(&circle), None);
        assert_eq!(live(&Pieces::default()), None);
    }

    #[test]
    fn an_arena_that_says_it_is_enormous_costs_what_is_resident() {
        let arena = SEGMENT..SEGMENT + (SLICE << 28);
        let resident =
            [SEGMENT..SEGMENT + 2 * SLICE, SEGMENT + (SLICE << 20)..SEGMENT + (SLICE << 20) + 1];
        let residency = Residency::of(resident);
        let found: Vec<u64> = resident_slices(&arena, &residency).collect();
        assert_eq!(found, [SEGMENT + SLICE, SEGMENT + (SLICE << 20)]);
    }
}
