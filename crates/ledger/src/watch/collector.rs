//! What a JVM's own counters say of its heap.
//!
//! Seen from outside, a heap under a collector grows in steps as it sees fit, stands still for minutes
//! while objects pile up in it, and grows though nothing leaks. What is in use after the old generation
//! was collected, again and again, is what the program holds.

use super::JavaLine;
use crate::series::{Point, Series};
use crate::verdict::{Nature, Verdict, When, judge};

/// So many collections of the old generation must lie in a window for its growth to be a leak: the
/// first may find much that was never collected before.
const ENOUGH: usize = 2;
/// Memory of the JVM's that is not its heap: what its size demands, and so much besides.
const BESIDE_SHARE: f64 = 0.25;
const BESIDE: f64 = (64 << 20) as f64;
/// Times of collections that are remembered.
const MOST: usize = 256;

/// A JVM's heap over time.
#[derive(Debug, Clone, Default)]
pub(super) struct JavaSeries {
    old: Series,
    last: Option<JavaLine>,
    /// When the old generation was collected.
    collected: Vec<f64>,
}

impl JavaSeries {
    pub fn push(&mut self, time_s: f64, heap: JavaLine) {
        if self.last.is_some_and(|last| heap.old_collections > last.old_collections) {
            if self.collected.len() == MOST {
                self.collected.remove(0);
            }
            self.collected.push(time_s);
        }
        self.last = Some(heap);
        self.old.push(Point { time_s, bytes: heap.old_bytes as f64 });
    }

    /// What was said last.
    pub fn latest(&self) -> Option<JavaLine> {
        self.last
    }

    pub fn points(&self) -> usize {
        self.old.points().len() + self.collected.len()
    }

    /// The verdict on the layer that holds the heap, `bytes` large, in the light of this.
    pub fn ask(&self, layer: Verdict, bytes: u64, when: When) -> Verdict {
        let (Some(heap), Some(last)) = (self.last, self.old.points().last()) else { return layer };
        let old = judge(&self.old, Nature::Held, when);
        let since = last.time_s - old.window_s;
        let collections = self.collected.iter().filter(|&&at| at >= since).count();
        let seconds = old.window_s;
        if old.leak == Some(true) && collections >= ENOUGH {
            let why = format!(
                "the JVM's old generation rose through all of the last {seconds:.0} s, and through \
                 {collections} collections of it"
            );
            return Verdict { why, ..old };
        }
        let capacity = heap.capacity_bytes as f64;
        let is_heap = bytes as f64 <= capacity * (1.0 + BESIDE_SHARE) + BESIDE;
        if layer.leak != Some(true) || !is_heap {
            return layer;
        }
        let why = match collections {
            0 => format!(
                "cannot tell: the JVM has not collected its old generation in the last {seconds:.0} s, \
                 and nobody knows what that would free; `jcmd PID GC.run` does it now: growth \
                 through two of them tells"
            ),
            _ => "cannot tell: its old generation does not grow as what it takes does; it may be taking \
                  the room that it has set aside for its heap"
                .to_owned(),
        };
        Verdict { leak: None, why, ..layer }
    }
}
