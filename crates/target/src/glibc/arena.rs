//! `main_arena` and the arenas that hang on it.

use super::window::Data;
use crate::{Map, Range, ReadMemory, maps};

/// `NBINS - 1` pairs of list pointers: bin 0 does not exist.
const BINS: usize = 127;
/// An empty bin points 16 bytes before itself, as if it were a chunk.
const BIN_BIAS: u64 = 16;
/// A fragmented heap fills many bins; this many must still be empty for the shape to be certain.
const EMPTY_BINS: usize = 12;
/// From the start of `malloc_state` to its bins: with `have_fastchunks` (2.26 and later), before it, and
/// without fastbins (2.43).
const BINS_OFFSETS: [u64; 3] = [112, 104, 24];
/// `MALLOC_STATE` after the bins: binmap 16, next, `next_free`, `attached_threads`, `system_mem`, max.
const TAIL: u64 = BINS as u64 * 16 + 16;
const NEXT: u64 = TAIL;
const SYSTEM_MEMORY: u64 = TAIL + 24;
const STATE_END: u64 = TAIL + 40;
/// Arenas are at most eight a core unless configured otherwise.
const MAX_ARENAS: usize = 65_536;
const MAX_HEAPS: usize = 65_536;
/// `HEAP_MAX_SIZE`: 64 MiB; with `glibc.malloc.hugetlb` (2.35 and later) four huge pages.
const HEAP_SIZES: [u64; 4] = [64 << 20, 8 << 20, 4 << 30, 128 << 20];

/// One arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// Address of its `malloc_state`.
    pub address: u64,
    /// Address of its bins.
    pub bins: u64,
    /// Its top chunk.
    pub top: Range,
    /// Bytes that it says it took from the system.
    pub system_bytes: u64,
    /// Where its chunks are.
    pub segments: Vec<Segment>,
}

/// A contiguous run of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// All its addresses, the allocator's own header included.
    pub range: Range,
    /// Its first chunk.
    pub first_chunk: u64,
    /// The arena's top chunk, where it is in this segment.
    pub top: Option<Range>,
}

/// Finds the main arena in a data segment, and all others behind it.
pub(super) fn find(memory: &impl ReadMemory, data: &Data, maps: &[Map]) -> Option<Vec<Arena>> {
    let (main, offset) =
        main_bins(data, maps).into_iter().find_map(|bins| main_address(memory, data, bins))?;
    let mut arenas = vec![read(memory, main, offset)?];
    let mut next = memory.u64_at(main + offset + NEXT)?;
    while next != main {
        if arenas.len() >= MAX_ARENAS || arenas.iter().any(|arena| arena.address == next) {
            return None;
        }
        let mut arena = read(memory, next, offset)?;
        arena.segments = heaps(memory, &arena)?;
        next = memory.u64_at(next.checked_add(offset)?.checked_add(NEXT)?)?;
        arenas.push(arena);
    }
    Some(arenas)
}

/// Where the bins may start: the start of 127 pairs, of which the empty ones point at themselves, and
/// around which `top` and the counters make sense.
fn main_bins(data: &Data, maps: &[Map]) -> Vec<u64> {
    let words = data.words();
    let is_empty_bin = |index: usize| {
        let own = data.address(index).wrapping_sub(BIN_BIAS);
        words.get(index) == Some(&own) && words.get(index + 1) == Some(&own)
    };
    let empty: Vec<usize> = (0..words.len()).filter(|&index| is_empty_bin(index)).collect();
    let Some(&first) = empty.first() else { return Vec::new() };
    let near = empty.iter().take_while(|&&index| index < first + 2 * BINS);
    if near.filter(|&&index| (index - first).is_multiple_of(2)).count() < EMPTY_BINS {
        return Vec::new();
    }
    let heap = maps.iter().find(|map| map.name == "[heap]");
    let grown = heap.map(|heap| heap.start..maps::reach_of_heap(maps, heap));
    let starts = (0..BINS).filter_map(|before| first.checked_sub(2 * before));
    let fitting = starts.filter_map(|index| {
        let fits = |byte: u64| words.get(index + byte as usize / 8).copied();
        let top = words.get(index.checked_sub(2)?).copied()?;
        let (system, most) = (fits(SYSTEM_MEMORY)?, fits(SYSTEM_MEMORY + 8)?);
        let inside = maps::find(maps, top).is_some_and(Map::is_anonymous);
        let top_is_real =
            top % 16 == 0 && (inside || grown.as_ref().is_some_and(|g| g.contains(&top)));
        let counters = system > 0 && system <= most && system % 16 == 0 && most < 1 << 47;
        (top_is_real && counters).then(|| data.address(index))
    });
    fitting.collect()
}

/// The arena's own address: the circular list of arenas comes back to it.
fn main_address(memory: &impl ReadMemory, data: &Data, bins: u64) -> Option<(u64, u64)> {
    let candidates = BINS_OFFSETS.into_iter().filter_map(|o| Some((bins.checked_sub(o)?, o)));
    candidates.into_iter().find(|&(main, offset)| {
        let mut at = main;
        for _ in 0..MAX_ARENAS {
            let next = at.checked_add(offset + NEXT).and_then(|a| memory.u64_at(a));
            match next {
                Some(next) if next == main => return data.range().contains(&main),
                Some(next) if next % 8 == 0 && next != at => at = next,
                _ => return false,
            }
        }
        false
    })
}

fn read(memory: &impl ReadMemory, address: u64, offset: u64) -> Option<Arena> {
    let bins = address.checked_add(offset)?;
    let top = top(memory, bins)?;
    let system_bytes = memory.u64_at(bins.checked_add(SYSTEM_MEMORY)?)?;
    Some(Arena { address, bins, top, system_bytes, segments: Vec::new() })
}

/// The top chunk of the arena with these bins, as it is now.
pub(super) fn top(memory: &impl ReadMemory, bins: u64) -> Option<Range> {
    let top = memory.u64_at(bins.checked_sub(16)?)?;
    let size = memory.u64_at(top.checked_add(8)?)? & !7;
    Some(top..top.checked_add(size)?)
}

/// The heaps of an arena that is not the main one: `heap_info {arena, previous, size, …}` stands at
/// a multiple of the heaps' largest size, the newest holds the top chunk.
fn heaps(memory: &impl ReadMemory, arena: &Arena) -> Option<Vec<Segment>> {
    // A heap may happen to be aligned to a larger size than its own.
    HEAP_SIZES.into_iter().find_map(|size| heaps_of_size(memory, arena, size))
}

fn heaps_of_size(memory: &impl ReadMemory, arena: &Arena, size: u64) -> Option<Vec<Segment>> {
    let first = arena.address / size * size;
    let header = arena.address - first;
    if header > 64 || memory.u64_at(first) != Some(arena.address) {
        return None;
    }
    let mut heap = arena.top.start / size * size;
    let mut segments = Vec::new();
    while heap != 0 {
        let info = memory.words_at(heap, 3)?;
        let sound = info[0] == arena.address && info[2] <= size && info[2] > header;
        if !sound || !heap.is_multiple_of(size) || segments.len() >= MAX_HEAPS {
            return None;
        }
        let state_end =
            if heap == first { arena.bins.checked_add(STATE_END)? } else { heap + header };
        let range = heap..heap + info[2];
        let top = range.contains(&arena.top.start).then(|| arena.top.clone());
        segments.push(Segment { range, first_chunk: state_end.next_multiple_of(16), top });
        if heap == first {
            return Some(segments);
        }
        heap = info[1];
    }
    None
}
