//! Memory that a process shares with its parent or its children since a fork, and copies as it is
//! written to.
//!
//! A copy moves no counter of resident memory: the page was resident before and is after. What moves is
//! the process's share of its private memory, with pages that several hold divided among them: added up
//! over a tree it is what the machine has to give.

use crate::series::{Point, Series};
use crate::verdict::{Kind, Nature, Verdict, When, judge};

const WHY: &str = "it writes to memory that it shares since a fork, and each page becomes a copy: resident \
                   memory does not grow, the machine's does, until nothing is shared any more";

/// The share of its private memory, and what of that is resident, over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies {
    share: Series,
    resident: Series,
}

impl Copies {
    pub fn push(&mut self, time_s: f64, [share, resident]: [f64; 2]) {
        self.share.push(Point { time_s, bytes: share });
        self.resident.push(Point { time_s, bytes: resident });
    }

    pub fn points(&self) -> usize {
        self.share.points().len() + self.resident.points().len()
    }

    pub fn latest(&self) -> Option<[u64; 2]> {
        let last = |series: &Series| Some(series.points().last()?.bytes.max(0.0) as u64);
        Some([last(&self.share)?, last(&self.resident)?])
    }

    /// What is said of it where the share grows and what is resident does not.
    pub fn verdict(&self, when: When) -> Option<Verdict> {
        let verdict = judge(&self.share, Nature::Harmless(WHY), when);
        let rate = verdict.bytes_per_s.filter(|rate| *rate > 0.0)?;
        let window = self.resident.last(verdict.window_s);
        let [first, .., last] = window else { return None };
        let resident = (last.bytes - first.bytes) / (last.time_s - first.time_s);
        (verdict.kind == Kind::Growing && resident < rate / 2.0).then_some(verdict)
    }
}
