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
const FLAGS: u64 = 7;
const SMALLEST: u64 = 32;
/// A fencepost closes a run of chunks: two headers of this size, or one and a size of 0.
const FENCEPOST: u64 = 16;
const ATTEMPTS: usize = 4;
/// How many chunks must follow each other for a place to be taken for a chunk again.
const CONVINCING: usize = 16;
/// How often the clock is asked.
const CHUNKS_A_LOOK: u64 = 4096;

/// Tells live bytes of a segment from the rest; tries again where the target changed it.
pub(super) fn tally(
    memory: &impl ReadMemory,
    segment: &Segment,
    residency: &Residency,
    until: Instant,
    caches: &mut TcacheFinder,
) -> Result<Tally, Torn> {
    let mut result = Err(Torn::Late);
    for _ in 0..ATTEMPTS {
        let mut tally =
            Tally { range: segment.range.clone(), in_use: 0, live_chunks: 0, foreign: Vec::new() };
        let mut found = TcacheFinder::default();
        let mut counter = Counter::new(residency, segment.range.start);
        let walked = walk(memory, segment, until, &mut |chunk| {
            if chunk.in_use {
                tally.in_use += counter.bytes_in(&chunk.range());
                tally.live_chunks += 1;
                found.meet(&chunk);
            }
        });
        match walked {
            Ok(foreign) => {
                tally.foreign = foreign;
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
pub(super) fn walk(
    memory: &impl ReadMemory,
    segment: &Segment,
    until: Instant,
    visit: &mut dyn FnMut(Chunk),
) -> Result<Vec<Range>, Torn> {
    let end = segment.top.as_ref().map_or(segment.range.end, |top| top.start);
    let mut window = Window::new(memory, segment.range.end);
    let mut foreign = Vec::new();
    let mut at = segment.first_chunk;
    let mut met = 0u64;
    let mut size = size_at(&mut window, at, segment).ok_or(Torn::Contradiction(at))?;
    while at < end {
        met += 1;
        if met.is_multiple_of(CHUNKS_A_LOOK) && Instant::now() > until {
            return Err(Torn::Late);
        }
        let next = at + (size & !FLAGS);
        if is_fencepost(&mut window, at, size) {
            match segment.top {
                None => return Ok(foreign),
                Some(_) => {
                    let again = resume(&mut window, next, end, segment, until)?;
                    foreign.push(next + FENCEPOST..again);
                    at = again;
                    size = size_at(&mut window, at, segment).ok_or(Torn::Contradiction(at))?;
                    continue;
                }
            }
        }
        let next_size = size_at(&mut window, next, segment);
        // A run without a top may end in a fencepost whose size is 0.
        let follows = next_size.or_else(|| window.u64(next + 8).filter(|s| s & !FLAGS == 0));
        let Some(follows) = follows.filter(|_| next <= segment.range.end) else {
            return Err(Torn::Contradiction(next));
        };
        visit(Chunk { address: at, size: size & !FLAGS, in_use: follows & PREVIOUS_IN_USE != 0 });
        if follows & !FLAGS == 0 {
            return if segment.top.is_none() {
                Ok(foreign)
            } else {
                Err(Torn::Contradiction(next))
            };
        }
        (at, size) = (next, follows);
    }
    if at == end { Ok(foreign) } else { Err(Torn::Contradiction(at)) }
}

/// The size word of the chunk at `at`, if it can be one.
fn size_at<M: ReadMemory>(window: &mut Window<'_, M>, at: u64, segment: &Segment) -> Option<u64> {
    let word = window.u64(at.checked_add(8)?)?;
    let size = word & !FLAGS;
    let fits = size.is_multiple_of(16)
        && at.checked_add(size)? <= segment.range.end
        && (size >= SMALLEST || size == FENCEPOST);
    fits.then_some(word)
}

fn is_fencepost<M: ReadMemory>(window: &mut Window<'_, M>, at: u64, size: u64) -> bool {
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
        if met == 0 && size & FLAGS != PREVIOUS_IN_USE {
            return false;
        }
        if is_fencepost(window, at, size) {
            return met > 0;
        }
        at += size & !FLAGS;
    }
    true
}
