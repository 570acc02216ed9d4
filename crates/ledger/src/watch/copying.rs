//! When a process is asked how much of its private memory is its own alone.
//!
//! The kernel answers by looking at every page. It is asked where pages are given to a process, or copied,
//! and its resident memory does not become more by as much: a child that writes to what it shares with its
//! parent looks like that. So does who frees as it takes, which shares nothing and is not asked again soon.

use plumb_target::Process;
use plumb_target::rollup::Rollup;

use super::{Counter, Observation};

const PAGE: f64 = 4096.0;
/// Bytes in pages that came and were nothing new.
const MOVED: f64 = (1 << 20) as f64;
/// Who shares nothing is asked again after so many seconds.
const AGAIN: f64 = 10.0;

/// What was known when it was asked last.
#[derive(Debug, Default)]
pub(super) struct Copying {
    /// Pages given until then, and what was resident of private memory.
    asked: Option<(u64, f64)>,
    /// What it said, once it shared memory.
    latest: Option<[f64; 2]>,
    /// It shared nothing then.
    alone: Option<f64>,
}

impl Copying {
    /// Whether it is worth asking. Else what is known is what is so.
    pub fn is_due(&mut self, seen: &mut Observation, now: f64) -> bool {
        let private = seen.counters.get(&Counter::Anonymous).copied().unwrap_or(0.0);
        let (faults, before) = *self.asked.get_or_insert((seen.faults, private));
        let given = seen.faults.saturating_sub(faults) as f64 * PAGE;
        let due = given >= MOVED
            && private - before < given / 2.0
            && self.alone.is_none_or(|at| now - at >= AGAIN);
        if !due {
            seen.private_share = self.latest;
        }
        due
    }

    /// Asks, and adds the answer.
    pub fn ask(&mut self, process: &Process, seen: &mut Observation, now: f64) {
        let private = seen.counters.get(&Counter::Anonymous).copied().unwrap_or(0.0);
        self.asked = Some((seen.faults, private));
        let sums = Rollup::read(process).ok().and_then(|sums| Some([sums.share?, sums.anonymous]));
        let Some(both) = sums.map(|both| both.map(|bytes| bytes as f64)) else {
            self.alone = Some(f64::MAX);
            return;
        };
        if self.latest.is_none() && both[1] - both[0] < MOVED {
            self.alone = Some(now);
            return;
        }
        self.alone = None;
        self.latest = Some(both);
        seen.private_share = self.latest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(faults: u64, mib: f64) -> Observation {
        let counters = [(Counter::Anonymous, mib * MOVED)].into();
        Observation { faults, counters, ..Observation::default() }
    }

    #[test]
    fn pages_that_make_a_process_bigger_are_no_copies() {
        let mut copying = Copying::default();
        assert!(!copying.is_due(&mut seen(1000, 100.0), 0.0), "what it came with");
        assert!(!copying.is_due(&mut seen(1000 + 1024, 104.0), 1.0), "4 MiB, all new");
        assert!(copying.is_due(&mut seen(1000 + 3072, 104.0), 2.0), "12 MiB, a third of it new");
    }

    #[test]
    fn who_shares_nothing_is_asked_rarely() {
        let mut copying = Copying::default();
        copying.is_due(&mut seen(0, 1.0), 0.0);
        let mut now = seen(4096, 1.0);
        assert!(copying.is_due(&mut now, 1.0));
        copying.ask(&Process::own(), &mut now, 1.0);
        assert_eq!(now.private_share, None);
        assert!(!copying.is_due(&mut seen(8192, 1.0), 2.0));
        assert!(copying.is_due(&mut seen(8192, 1.0), 11.0));
    }
}
