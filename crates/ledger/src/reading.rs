//! One pass over a process's mappings: what each costs, and which of its pages are resident.
//!
//! The target runs on while it is read. A mapping with several owners is divided by its pages, and
//! the pieces must add up to what the same pass said of the whole: so the pages are asked for at once
//! when the kernel has told a mapping's cost, not after all of them and the walks. What came or went
//! even so is the *drift*: a pass with much of it is made again.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use plumb_target::smaps::{self, Entry};
use plumb_target::{Error, Map, Pagemap, Process, Range, Residency};

/// How often a pass is made at most, and for how long another one is still begun.
const PASSES: usize = 4;
const BEGUN_WITHIN: Duration = Duration::from_millis(200);

/// What one pass saw.
pub(crate) struct Reading {
    pub entries: Vec<Entry>,
    pub pagemap: Option<Pagemap>,
    /// Of the mappings that may have several owners.
    pages: Residency,
}

impl Reading {
    /// Reads a process; of several passes, the one with the least drift.
    pub fn take(process: &Process) -> Result<Self, Error> {
        let begun = Instant::now();
        let mut best = Self::once(process)?;
        for _ in 1..PASSES {
            if best.is_steady() || begun.elapsed() > BEGUN_WITHIN {
                break;
            }
            let next = Self::once(process)?;
            if next.drift_of_all() < best.drift_of_all() {
                best = next;
            }
        }
        Ok(best)
    }

    fn once(process: &Process) -> Result<Self, Error> {
        let pagemap = Pagemap::open(process).ok();
        let mut runs: Vec<Range> = Vec::new();
        let entries = smaps::read_each(process, &mut |entry| {
            let Some(pagemap) = pagemap.as_ref().filter(|_| is_divisible(&entry.map)) else {
                return;
            };
            while runs.last().is_some_and(|run| run.start >= entry.map.start) {
                runs.pop();
            }
            if entry.usage.rss > 0 {
                runs.extend(pagemap.resident(&entry.map.range()).into_iter().map(|run| run.range));
            }
        })?;
        Ok(Self { entries, pagemap, pages: Residency::of(runs) })
    }

    /// What was resident of private memory when the pass met it.
    pub fn pages(&self) -> &Residency {
        &self.pages
    }

    /// What is resident of a mapping: as the pass saw it, where it asked.
    pub fn pages_of(&self, map: &Map) -> Cow<'_, Residency> {
        match &self.pagemap {
            Some(pagemap) if !is_divisible(map) => {
                Cow::Owned(Residency::read(pagemap, std::slice::from_ref(&map.range())))
            }
            _ => Cow::Borrowed(&self.pages),
        }
    }

    pub fn rss(&self) -> u64 {
        self.entries.iter().map(|entry| entry.usage.rss).sum()
    }

    fn drift_of_all(&self) -> u64 {
        let asked = self.entries.iter().filter(|entry| is_divisible(&entry.map));
        asked.map(|entry| entry.usage.rss.abs_diff(self.pages.bytes_in(&entry.map.range()))).sum()
    }

    fn is_steady(&self) -> bool {
        self.pagemap.is_none() || self.drift_of_all() <= tolerable(self.rss())
    }
}

/// How many bytes of a process this large may be uncertain before a person is told: 1 %, or 256 KiB.
pub(crate) fn tolerable(rss: u64) -> u64 {
    (rss / 100).max(256 << 10)
}

/// Whether a mapping may have several owners: allocators, stacks and arenas lie in such memory.
fn is_divisible(map: &Map) -> bool {
    map.is_anonymous() && map.permissions.write
}
