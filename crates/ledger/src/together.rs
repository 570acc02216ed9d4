//! Several processes' resident memory, added up.

use std::fmt;

use serde::Serialize;

use crate::sample::Sample;
use crate::table::bytes;

/// How many there are, and their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Together {
    /// How many processes.
    pub processes: usize,
    /// Their RSS: shared pages count several times.
    pub rss_bytes: u64,
    /// Their PSS: shared pages count once in all.
    pub pss_bytes: u64,
}

impl Together {
    /// Of these samples.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let none = Self { processes: 0, rss_bytes: 0, pss_bytes: 0 };
        samples.into_iter().fold(none, |sum, sample| Self {
            processes: sum.processes + 1,
            rss_bytes: sum.rss_bytes + sample.rss_bytes,
            pss_bytes: sum.pss_bytes + sample.pss_bytes,
        })
    }
}

impl fmt::Display for Together {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rss, pss) = (bytes(self.rss_bytes), bytes(self.pss_bytes));
        write!(out, "{rss} resident, {pss} when shared pages are divided")
    }
}
