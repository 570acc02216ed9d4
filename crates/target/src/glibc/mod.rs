//! glibc's malloc, read from outside, in stripped builds too.
//!
//! Nothing here needs symbols. `main_arena` is found in the C library's writable data by its own
//! shape: each of its 127 bins is a circular list, and an empty bin points at itself, which nothing
//! else in memory does 100 times in a row. Fields are then known relative to the bins. Other arenas
//! hang on its circular list; `mp_` is found beside it by values that must agree with each other.
//! Layouts follow malloc/malloc.c and malloc/arena.c of glibc.
//!
//! | glibc | state of the layout |
//! |---|---|
//! | 2.31, 2.36, 2.41, 2.43 | run against the lab's programs |
//! | 2.26 to 2.30, 2.32 to 2.35, 2.37 to 2.40 | same structures by its sources, untested |
//! | 2.23 to 2.25 (no tcache) | untested |
//! | 2.42 (tcache with large bins) | small bins only, untested |

mod arena;
mod chunks;
mod free;
mod mapped;
mod params;
mod spread;
mod stacks;
mod window;

pub use arena::{Arena, Segment};
pub use chunks::{Chunk, Torn};
pub use mapped::{Mapped, mapped_chunks};
pub use params::Params;
pub use stacks::{StackBlock, stack_blocks, stacks_of_threads};

use std::collections::HashSet;
use std::time::Instant;

use crate::{Map, Range, ReadMemory, Residency, maps};

/// The versions whose layout was run against real processes; others are untested.
pub const TESTED: [&str; 4] = ["2.31", "2.36", "2.41", "2.43"];

/// The malloc of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glibc {
    /// Its arenas, the main one first.
    pub arenas: Vec<Arena>,
    /// Its counters and settings (`mp_`), where they could be found.
    pub params: Option<Params>,
}

/// Resident bytes of one segment of a heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The segment's addresses.
    pub range: Range,
    /// Resident bytes of live chunks, headers included.
    pub in_use: u64,
    /// How many chunks are live.
    pub live_chunks: u64,
    /// Ranges inside the segment that are not the allocator's: raw `brk` memory.
    pub foreign: Vec<Range>,
}

impl Glibc {
    /// Finds malloc in the writable data of the C library or of a static executable. `None` where
    /// there is none, or it was never used.
    pub fn find(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Option<Self> {
        data.iter().find_map(|range| {
            let data = window::Data::read(memory, range)?;
            let arenas = arena::find(memory, &data, maps)?;
            let params = params::find(&data, maps);
            let mut found = Self { arenas, params };
            found.set_main_segment(maps);
            Some(found)
        })
    }

    /// The heaps' segments of all arenas.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.arenas.iter().flat_map(|arena| &arena.segments)
    }

    /// The main arena grows by `brk`: from where it began to the end of its top chunk, or of `[heap]`
    /// where the top chunk is elsewhere ([`Glibc::add_spread`]).
    fn set_main_segment(&mut self, maps: &[Map]) {
        let main = &mut self.arenas[0];
        let Some(heap) = maps.iter().find(|map| map.name == "[heap]") else { return };
        let base = self.params.as_ref().map(|p| p.sbrk_base).filter(|base| heap.contains(*base));
        let start = base.unwrap_or(heap.start);
        let reach = maps::reach_of_heap(maps, heap);
        let top = (start..reach).contains(&main.top.start).then(|| main.top.clone());
        let range = start..top.as_ref().map_or(heap.end, |top| top.end);
        let first_chunk = start.next_multiple_of(16);
        main.segments = vec![Segment { range, first_chunk, top }];
    }

    /// Walks every segment and tells live bytes from the rest. `residency` must cover the segments.
    /// A segment that changed under the walk, again and again, or that contradicts itself, is an
    /// error: its bytes cannot be split.
    pub fn tally(
        &self,
        memory: &impl ReadMemory,
        residency: &Residency,
        until: Instant,
    ) -> Vec<(Segment, Result<Tally, Torn>)> {
        let mut caches = free::TcacheFinder::default();
        let walked: Vec<_> = self
            .segments()
            .map(|segment| {
                let mut segment = segment.clone();
                let moved = |then: &Segment| self.moved(memory, then);
                let result =
                    chunks::tally(memory, &mut segment, residency, until, &moved, &mut caches);
                (segment, result)
            })
            .collect();
        let segments: Vec<&Segment> = self.segments().collect();
        let mut seen = HashSet::new();
        let mut freed = free::fast_chunks(memory, &self.arenas, &segments, &mut seen, until);
        freed.extend(caches.cached_chunks(memory, &segments, &mut seen, until));
        freed.sort_unstable_by_key(|chunk| chunk.start);
        walked
            .into_iter()
            .map(|(s, tally)| (s, tally.map(|t| less(t, &freed, residency))))
            .collect()
    }

    /// The main arena's segment with its top chunk where it is by now, if that is elsewhere.
    fn moved(&self, memory: &impl ReadMemory, segment: &Segment) -> Option<Segment> {
        let is_its = |own: &Segment| own.first_chunk == segment.first_chunk;
        let main = self.arenas.first().filter(|main| main.segments.iter().any(is_its))?;
        let top = arena::top(memory, main.bins)?;
        let moved = segment.top.as_ref().is_some_and(|then| *then != top);
        let here = segment.first_chunk..segment.range.end.saturating_add(maps::GROWN);
        (moved && here.contains(&top.start)).then_some(Segment {
            range: segment.range.start..top.end,
            first_chunk: segment.first_chunk,
            top: Some(top),
        })
    }

    /// Calls `visit` with every chunk that its neighbours call live, in order of address. Chunks in
    /// tcache and fastbins are among them: see [`Glibc::cached`].
    ///
    /// # Errors
    /// The first segment that could not be walked.
    pub fn live_chunks(
        &self,
        memory: &impl ReadMemory,
        until: Instant,
        visit: &mut dyn FnMut(Chunk),
    ) -> Result<(), Torn> {
        for segment in self.segments() {
            let moved = |then: &Segment| self.moved(memory, then);
            chunks::walk(memory, &mut segment.clone(), until, &moved, &mut |chunk| {
                if chunk.in_use {
                    visit(chunk);
                }
            })?;
        }
        Ok(())
    }

    /// The chunks that were freed into tcache and fastbins: live by their headers, but free.
    pub fn cached(&self, memory: &impl ReadMemory, until: Instant) -> HashSet<u64> {
        let mut caches = free::TcacheFinder::default();
        let _walked = self.live_chunks(memory, until, &mut |chunk| caches.meet(&chunk));
        let segments: Vec<&Segment> = self.segments().collect();
        let mut seen = HashSet::new();
        free::fast_chunks(memory, &self.arenas, &segments, &mut seen, until);
        caches.cached_chunks(memory, &segments, &mut seen, until);
        seen
    }
}

/// Takes chunks that wait in tcache and fastbins out of the live ones.
fn less(mut tally: Tally, freed: &[Range], residency: &Residency) -> Tally {
    let from = freed.partition_point(|chunk| chunk.start < tally.range.start);
    let to = freed.partition_point(|chunk| chunk.start < tally.range.end);
    for chunk in &freed[from..to.max(from)] {
        tally.in_use = tally.in_use.saturating_sub(residency.bytes_in(chunk));
        tally.live_chunks = tally.live_chunks.saturating_sub(1);
    }
    tally
}
