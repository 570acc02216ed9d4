//! The walk from chunk to chunk.

use std::time::Instant;

use super::free::TcacheFinder;
use super::window::Window;
use super::{Segment, Tally};
use crate::{Range, ReadMemory, Residency};

/// One chunk, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where its header begins: 16 bytes before what malloc returned.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its neighbour calls it live.
    pub in_use: bool,
}

impl Chunk {
    /// Its addresses.
    pub fn range(&self) -> Range {
        self.address..self.address + self.size
    }
}

/// Why a segment could not be walked to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// A header that cannot be: the target changed it meanwhile, or wrote over it.
    #[error("the chunk at {0:#x} contradicts its neighbours")]
    Contradiction(u64),
    /// The time that the walk was given is over.
    #[error("the walk took longer than its budget")]
    Late,
}

const PREVIOUS_IN_USE: u64 = 1;
pub(super) const FLAGS: u64 = 7;
const SMALLEST: u64 = 32;
/// A fencepost closes a run of chunks: two headers of this size, or one and a size of 0.
pub(super) const FENCEPOST: u64 = 16;
const ATTEMPTS: usize = 4;
/// How many chunks must follow each other for a place to be taken for a chunk again.
const CONVINCING: usize = 16;
/// How often the clock is asked.
const CHUNKS_A_LOOK: u64 = 4096;

/// The segment with its top chunk where it is by now, if that is elsewhere.
pub(super) type Moved<'a> = &'a dyn Fn(&Segment) -> Option<Segment>;

/// Tells live bytes of a segment from the rest; tries again where the target changed it. The segment
/// is then as it was seen last.
pub(super) fn tally(
    memory: &impl ReadMemory,
    segment: &mut Segment,
    residency: &Residency,
    until: Instant,
    moved: Moved<'_>,
    caches: &mut TcacheFinder,
) -> Result<Tally, Torn> {
    let mut result = Err(Torn::Late);
    for _ in 0..ATTEMPTS {
        let mut tally = Tally { range: 0..0, in_use: 0, live_chunks: 0, foreign: Vec::new() };
        let mut found = TcacheFinder::default();
        let mut counter = Counter::new(residency, segment.range.start);
        let walked = walk(memory, segment, until, moved, &mut |chunk| {
            if chunk.in_use {
                tally.in_use += counter.bytes_in(&chunk.range());
                tally.live_chunks += 1;
                found.meet(&chunk);
            }
        });
        match walked {
            Ok(foreign) => {
                (tally.range, tally.foreign) = (segment.range.clone(), foreign);
                caches.take(found);
                return Ok(tally);
            }
            Err(Torn::Late) => return Err(Torn::Late),
            Err(torn) => result = Err(torn),
        }
    }
    result
}

/// Resident bytes of ranges that only go up: no search for each.
struct Counter<'a> {
    runs: &'a [Range],
}

impl<'a> Counter<'a> {
    fn new(residency: &'a Residency, start: u64) -> Self {
        let from = residency.runs().partition_point(|run| run.end <= start);
        Self { runs: &residency.runs()[from..] }
    }

    fn bytes_in(&mut self, range: &Range) -> u64 {
        let mut sum = 0;
        while let Some(run) = self.runs.first() {
            let (start, end) = (run.start.max(range.start), run.end.min(range.end));
            sum += end.saturating_sub(start);
            if run.end > range.end {
                break;
            }
            self.runs = &self.runs[1..];
        }
        sum
    }
}

/// Visits every chunk of a segment in order, and returns the ranges that are not the allocator's.
///
/// The target allocates and frees meanwhile, so that a chunk may be gone when its end is looked at.
/// A contradiction is therefore looked at again, from further and further back: chunks are visited
/// only when the walk is well past them. Where the top chunk was, a chunk may lie by now: the walk goes
/// on towards where it is.
pub(super) fn walk(
    memory: &impl ReadMemory,
    segment: &mut Segment,
    until: Instant,
    moved: Moved<'_>,
    visit: &mut dyn FnMut(Chunk),
) -> Result<Vec<Range>, Torn> {
    let mut walk = Walk {
        window: Window::new(memory, segment.range.end),
        segment: segment.clone(),
        until,
        at: segment.first_chunk,
        foreign: Vec::new(),
    };
    let mut pending: Vec<Chunk> = Vec::new();
    let (mut met, mut back, mut failures, mut furthest) = (0u64, 1, 0, 0);
    loop {
        met += 1;
        if met.is_multiple_of(CHUNKS_A_LOOK) && Instant::now() > until {
            return Err(Torn::Late);
        }
        match walk.step() {
            Ok(Step::Chunk(chunk)) => pending.push(chunk),
            Ok(Step::Skipped) => {}
            Ok(Step::End) => break,
            Err(Torn::Late) => return Err(Torn::Late),
            Err(torn) => {
                if walk.at > furthest {
                    (furthest, back) = (walk.at, 1);
                }
                failures += 1;
                if let Some(now) = moved(&walk.segment).filter(|_| failures <= MOST_FAILURES) {
                    segment.clone_from(&now);
                    walk.window = Window::new(memory, now.range.end);
                    walk.segment = now;
                    continue;
                }
                if failures > MOST_FAILURES || back > 2 * KEPT_BACK {
                    return Err(torn);
                }
                let from = pending.len().saturating_sub(back);
                walk.at = pending.get(from).map_or(walk.at, |chunk| chunk.address);
                pending.truncate(from);
                let at = walk.at;
                walk.foreign.retain(|range| range.end <= at);
                walk.window.forget();
                back *= 2;
            }
        }
        if pending.len() > 2 * KEPT_BACK {
            pending.drain(..KEPT_BACK).for_each(&mut *visit);
        }
    }
    pending.into_iter().for_each(visit);
    Ok(walk.foreign)
}

/// How many chunks a walk can go back, and how often in all.
const KEPT_BACK: usize = 4096;
const MOST_FAILURES: u32 = 1000;

struct Walk<'a, M> {
    window: Window<'a, M>,
    segment: Segment,
    until: Instant,
    at: u64,
    foreign: Vec<Range>,
}

enum Step {
    Chunk(Chunk),
    /// A fencepost and what is not the allocator's behind it.
    Skipped,
    End,
}

impl<M: ReadMemory> Walk<'_, M> {
    /// One step up from `at`, which stays where it is on failure.
    fn step(&mut self) -> Result<Step, Torn> {
        let (at, segment) = (self.at, &self.segment);
        let end = segment.top.as_ref().map_or(segment.range.end, |top| top.start);
        if at >= end {
            // A target that allocates may have moved the top chunk, but not out of the segment.
            let sound = at == end || segment.top.is_some() && at <= segment.range.end;
            return if sound { Ok(Step::End) } else { Err(Torn::Contradiction(at)) };
        }
        let window = &mut self.window;
        let size = size_at(window, at, segment).ok_or(Torn::Contradiction(at))?;
        let next = at + (size & !FLAGS);
        if is_fencepost(window, at, size) {
            let again = resume(window, next, end, segment, self.until)?;
            if segment.top.is_none() && again == end {
                return Ok(Step::End);
            }
            self.foreign.push(next + FENCEPOST..again);
            self.at = again;
            return Ok(Step::Skipped);
        }
        if next == segment.range.end && segment.top.is_some() {
            // What was freed before the top chunk has become part of it.
            self.at = next;
            return Ok(Step::Skipped);
        }
        let next_size = size_at(window, next, segment);
        // A run without a top may end in a fencepost whose size is 0.
        let closes = || window.u64(next + 8).filter(|s| s & !FLAGS == 0 && segment.top.is_none());
        let follows = next_size.or_else(closes).filter(|_| next <= segment.range.end);
        let follows = follows.ok_or(Torn::Contradiction(next))?;
        self.at = if follows & !FLAGS == 0 { segment.range.end } else { next };
        let in_use = follows & PREVIOUS_IN_USE != 0;
        Ok(Step::Chunk(Chunk { address: at, size: size & !FLAGS, in_use }))
    }
}

/// The size word of the chunk at `at`, if it can be one.
pub(super) fn size_at<M: ReadMemory>(
    window: &mut Window<'_, M>,
    at: u64,
    segment: &Segment,
) -> Option<u64> {
    let word = window.u64(at.checked_add(8)?)?;
    let size = word & !FLAGS;
    let fits = size.is_multiple_of(16)
        && at.checked_add(size)? <= segment.range.end
        && (size >= SMALLEST || size == FENCEPOST);
    fits.then_some(word)
}

pub(super) fn is_fencepost<M: ReadMemory>(window: &mut Window<'_, M>, at: u64, size: u64) -> bool {
    size & !FLAGS == FENCEPOST
        && window.u64(at + FENCEPOST + 8).is_some_and(|s| matches!(s & !FLAGS, 0 | FENCEPOST))
}

/// After raw `brk` memory: the next place from which chunks follow each other convincingly.
fn resume<M: ReadMemory>(
    window: &mut Window<'_, M>,
    from: u64,
    end: u64,
    segment: &Segment,
    until: Instant,
) -> Result<u64, Torn> {
    window.forget();
    let mut at = from + FENCEPOST;
    let mut looked = 0u64;
    while at < end {
        looked += 1;
        if looked.is_multiple_of(CHUNKS_A_LOOK) && Instant::now() > until {
            return Err(Torn::Late);
        }
        if convinces(window, at, end, segment) {
            return Ok(at);
        }
        at += 16;
    }
    // The top chunk itself may follow at once.
    Ok(end)
}

fn convinces<M: ReadMemory>(
    window: &mut Window<'_, M>,
    start: u64,
    end: u64,
    segment: &Segment,
) -> bool {
    let mut at = start;
    for met in 0..CONVINCING {
        if at == end {
            return met > 0;
        }
        let Some(size) = size_at(window, at, segment).filter(|_| at < end) else { return false };
        // What follows a foreign piece calls its neighbour live: nothing of it can be merged.
        if met == 0 && (size & FLAGS != PREVIOUS_IN_USE || size & !FLAGS < SMALLEST) {
            return false;
        }
        if is_fencepost(window, at, size) {
            return met > 0;
        }
        at += size & !FLAGS;
    }
    true
}
