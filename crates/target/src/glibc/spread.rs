//! The main arena where `brk` could not grow: pieces that malloc mapped instead.
//!
//! It happens where something else is mapped behind the heap, under `RLIMIT_DATA`, and always with
//! `glibc.malloc.hugetlb=2`. A piece begins on a page with a chunk whose neighbour below counts as
//! live, and its chunks lead exactly to the arena's top chunk or to two fenceposts at the end of a page.
//! The first piece has 1 MiB (`MMAP_AS_MORECORE_SIZE`), later ones may be as small as the request and
//! the padding.

use std::time::Instant;

use super::chunks::{FENCEPOST, FLAGS, is_fencepost, size_at};
use super::window::Window;
use super::{Glibc, Segment};
use crate::{PAGE, Range, ReadMemory, Residency};

const SHORTEST: u64 = 16 << 10;
/// How much must be missing before all memory is searched: an arena that grows while it is read seems
/// to miss what it took meanwhile.
const MISSED: u64 = 1 << 20;
/// The size word of a piece's first chunk has the mark of a live neighbour and no other.
const MARKS: u64 = 1;
/// Pages whose first words are asked for at once.
const BATCH: usize = 512;

impl Glibc {
    /// Whether the main arena holds more than the segments that are known of it.
    pub fn is_spread(&self) -> bool {
        self.lacks_top() || self.missing() >= MISSED
    }

    fn lacks_top(&self) -> bool {
        self.arenas.first().is_some_and(|main| {
            !main.segments.iter().any(|segment| segment.range.contains(&main.top.start))
        })
    }

    fn missing(&self) -> u64 {
        let Some(main) = self.arenas.first() else { return 0 };
        let known = main.segments.iter().map(|s| s.range.end - s.range.start).sum();
        main.system_bytes.saturating_sub(known)
    }

    /// Finds the pieces of the main arena in ranges of private memory that nobody owns, sorted and
    /// apart, as far as `system_mem` says that there are more.
    pub fn add_spread(
        &mut self,
        memory: &impl ReadMemory,
        ranges: &[Range],
        residency: &Residency,
        until: Instant,
    ) {
        for range in ranges {
            let mut at = range.start;
            while at < range.end
                && (self.lacks_top() || self.missing() > 0)
                && Instant::now() < until
            {
                let Some((start, end)) =
                    self.next_piece(memory, &(at..range.end), residency, until)
                else {
                    break;
                };
                at = end;
                let main = &mut self.arenas[0];
                let top = (start..end).contains(&main.top.start).then(|| main.top.clone());
                main.segments.push(Segment { range: start..end, first_chunk: start, top });
            }
        }
    }

    fn next_piece(
        &self,
        memory: &impl ReadMemory,
        range: &Range,
        residency: &Residency,
        until: Instant,
    ) -> Option<(u64, u64)> {
        let top = &self.arenas.first()?.top;
        let from = residency.runs().partition_point(|run| run.end <= range.start);
        let runs = residency.runs()[from..].iter().take_while(|run| run.start < range.end);
        let mut pages = runs.flat_map(|run| {
            (run.start.max(range.start)..run.end.min(range.end)).step_by(PAGE as usize)
        });
        let mut bytes = vec![0; BATCH * 16];
        while Instant::now() < until {
            let pages: Vec<u64> = pages.by_ref().take(BATCH).collect();
            if pages.is_empty() {
                break;
            }
            let bytes = &mut bytes[..pages.len() * 16];
            memory.read_scattered(&pages, 16, bytes);
            for (&page, header) in pages.iter().zip(crate::memory::words(bytes).chunks_exact(2)) {
                if header[0] != 0 || header[1] & FLAGS != MARKS {
                    continue;
                }
                let end = end_of_piece(memory, page, range.end, top);
                if let Some(end) = end.filter(|&end| end - page >= SHORTEST) {
                    return Some((page, end));
                }
            }
        }
        None
    }
}

/// Where the chunks from `start` on end, if that is where a piece ends.
fn end_of_piece(memory: &impl ReadMemory, start: u64, limit: u64, top: &Range) -> Option<u64> {
    let whole = Segment { range: start..limit, first_chunk: start, top: None };
    let mut window = Window::new(memory, limit);
    let mut at = start;
    loop {
        if at == top.start {
            return Some(top.end).filter(|&end| end <= limit);
        }
        let size = size_at(&mut window, at, &whole)?;
        if is_fencepost(&mut window, at, size) {
            // What was left of the old top chunk may be as small as a third one.
            let ends = [at + 2 * FENCEPOST, at + 3 * FENCEPOST];
            return ends.into_iter().find(|end| end.is_multiple_of(PAGE));
        }
        let next = at + (size & !FLAGS);
        if size & !FLAGS < 2 * FENCEPOST || next >= limit {
            return None;
        }
        at = next;
    }
}
