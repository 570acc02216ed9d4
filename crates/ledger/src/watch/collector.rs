//! What a JVM's own counters say of its heap.
//!
//! Seen from outside, a heap under a collector grows in steps as it sees fit, stands still for minutes
//! while objects pile up in it, and grows though nothing leaks. What is in use after the old generation
//! was collected, again and again, is what the program holds.

use super::JavaLine;
use crate::series::{Point, Series};
use crate::verdict::{Kind, Nature, Verdict, When, judge};

/// More than so many collections of the old generation must lie in a window for its growth to be a leak:
/// the first may find much that was never collected before, and a cache may fill through two.
const ENOUGH: usize = 2;
/// Memory of the JVM's that is not its heap: what its size demands, and so much besides.
const BESIDE_SHARE: f64 = 0.25;
const BESIDE: f64 = (64 << 20) as f64;
/// After so many collections at most it is compared what they left, through so many seconds at least;
/// what rose by less is nothing, and a rise that is so much slower than another slows down.
const FLOORS: usize = 8;
const LEAST_TIME: f64 = 45.0;
const LEAST_RISE: f64 = (5 << 20) as f64;
const EVEN: f64 = 0.5;
/// Collections that are remembered.
const MOST: usize = 256;

/// A JVM's heap over time.
#[derive(Debug, Clone, Default)]
pub(super) struct JavaSeries {
    old: Series,
    last: Option<JavaLine>,
    /// When the old generation was collected, and the least that was in use of it since.
    collected: Vec<Point>,
}

impl JavaSeries {
    pub fn push(&mut self, time_s: f64, heap: JavaLine) {
        if self.last.is_some_and(|last| heap.old_collections > last.old_collections) {
            if self.collected.len() == MOST {
                self.collected.remove(0);
            }
            self.collected.push(Point { time_s, bytes: f64::INFINITY });
        }
        if let Some(floor) = self.collected.last_mut() {
            floor.bytes = floor.bytes.min(heap.old_bytes as f64);
        }
        self.last = Some(heap);
        self.old.push(Point { time_s, bytes: heap.old_bytes as f64 });
    }

    /// What was said at that time.
    pub fn at(&self, time_s: f64) -> Option<JavaLine> {
        self.last.filter(|_| self.old.points().last().is_some_and(|p| p.time_s == time_s))
    }

    pub fn points(&self) -> usize {
        self.old.points().len() + self.collected.len()
    }

    /// What is in use after a collection is what the program holds: where that rose from each to the
    /// next and did not slow down, it leaks.
    fn rises_from_collection_to_collection(&self) -> Option<Verdict> {
        let floors = &self.collected[self.collected.len().saturating_sub(FLOORS)..];
        let ([first, .., last], true) = (floors, floors.len() > ENOUGH) else { return None };
        let (seconds, rise) = (last.time_s - first.time_s, last.bytes - first.bytes);
        let rates =
            floors.windows(2).map(|f| (f[1].bytes - f[0].bytes) / (f[1].time_s - f[0].time_s));
        let rates: Vec<f64> = rates.collect();
        let highest = rates.iter().copied().fold(f64::MIN, f64::max);
        let even = rates.iter().all(|rate| *rate > EVEN * highest);
        if seconds < LEAST_TIME || rise < LEAST_RISE || !even {
            return None;
        }
        let lowest = rates.iter().copied().fold(f64::MAX, f64::min);
        let why = format!(
            "what {} collections of the JVM's old generation left rose from each to the next, through \
             {seconds:.0} s",
            floors.len()
        );
        Some(Verdict {
            kind: Kind::Growing,
            leak: Some(true),
            bytes_per_s: Some(rise / seconds),
            interval: Some([lowest, highest]),
            window_s: seconds,
            why,
        })
    }

    /// The verdict on the layer that holds the heap, `bytes` large, in the light of this.
    pub fn ask(&self, layer: Verdict, bytes: u64, when: When) -> Verdict {
        let (Some(heap), Some(last)) = (self.last, self.old.points().last()) else { return layer };
        let old = judge(&self.old, Nature::Held, when);
        let since = last.time_s - old.window_s;
        let collections = self.collected.iter().filter(|at| at.time_s >= since).count();
        let seconds = old.window_s;
        if old.leak == Some(true) && collections > ENOUGH {
            let why = format!(
                "the JVM's old generation rose through all of the last {seconds:.0} s, and through \
                 {collections} collections of it"
            );
            return Verdict { why, ..old };
        }
        if let Some(leak) = self.rises_from_collection_to_collection() {
            return leak;
        }
        let capacity = heap.capacity_bytes as f64;
        let is_heap = bytes as f64 <= capacity * (1.0 + BESIDE_SHARE) + BESIDE;
        // Objects pile up in memory that it took long ago.
        if layer.leak == Some(false) && old.leak == Some(true) && is_heap {
            let why = format!(
                "cannot tell: the JVM's old generation rose through the last {seconds:.0} s in memory that it \
                 had, and was collected {collections} times: growth through three of them tells; \
                 `jcmd PID GC.run` makes one now"
            );
            return Verdict { leak: None, why, ..old };
        }
        if layer.leak != Some(true) || !is_heap {
            return layer;
        }
        let why = match collections {
            0 => format!(
                "cannot tell: the JVM has not collected its old generation in the last {seconds:.0} s, \
                 and nobody knows what that would free; `jcmd PID GC.run` does it now: growth \
                 through three of them tells"
            ),
            _ => "cannot tell: its old generation does not grow as what it takes does; it may be taking \
                  the room that it has set aside for its heap"
                .to_owned(),
        };
        Verdict { leak: None, why, ..layer }
    }
}
