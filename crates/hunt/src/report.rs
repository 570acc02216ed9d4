//! What a hunt found, in the form that `--json` prints.

use plumb_trace::Frame;
use serde::Serialize;

use crate::advice::Advice;
use crate::growth::{Track, Verdict};
use crate::objects::Objects;

/// One stack and what it still holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Culprit {
    /// The process.
    pub pid: u32,
    /// Resident, mapped or allocated since the attach, still held at the end.
    pub outstanding_bytes: u64,
    /// Growth charged to ranges older than the attach.
    pub older_bytes: u64,
    /// How many mappings or objects.
    pub count: u64,
    /// Share of the growth, 0 to 1; `None` where there was none.
    pub share: Option<f64>,
    /// Half the width of the share's 95 % interval, where it comes from samples.
    pub share_error: Option<f64>,
    /// Seconds since the oldest of them was made.
    pub age_s: Option<f64>,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

impl Culprit {
    /// Whether another differs in nothing but the lines that it passed through.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same = |(a, b): (&Frame, &Frame)| {
            a.function.is_some()
                && (a.kind, &a.function, &a.module) == (b.kind, &b.function, &b.module)
        };
        self.pid == other.pid
            && self.frames.len() == other.frames.len()
            && self.frames.iter().zip(&other.frames).all(same)
    }

    /// Adds another of the same functions.
    pub(crate) fn add(&mut self, other: &Self) {
        self.outstanding_bytes += other.outstanding_bytes;
        self.older_bytes += other.older_bytes;
        self.count += other.count;
        let both = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.share = both(self.share, other.share).map(|s| s.min(1.0));
        self.share_error = both(self.share_error, other.share_error);
        let ages = self.age_s.into_iter().chain(other.age_s);
        self.age_s = ages.reduce(f64::max);
    }
}

/// What the hunt itself cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cost {
    /// Processor seconds of this process.
    pub cpu_s: f64,
    /// The same, per second watched.
    pub cores: f64,
    /// Whether the target mapped so fast that maps were paired in the kernel instead of replayed.
    pub paired_in_kernel: bool,
    /// Our own resident bytes at the end.
    pub rss_bytes: u64,
    /// Events taken in.
    pub events: u64,
    /// Stacks copied out of the target.
    pub stacks_copied: u64,
    /// Allocations that bursts of probes on malloc saw.
    pub allocations_sampled: u64,
    /// Why malloc was not probed though a heap grew.
    pub not_probed: Option<String>,
    /// Why nothing was traced, and so no stack can be named.
    pub not_traced: Option<String>,
    /// Maps and unmaps counted in the kernel only.
    pub counted_in_kernel: u64,
}

/// All that a hunt found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// As `plumb watch` gives it, with `pid`.
    pub verdict: Verdict,
    /// Biggest first.
    pub culprits: Vec<Culprit>,
    /// Which Python objects became more; `None` where no Python runs or nothing private grows.
    pub python: Option<Objects>,
    /// As `plumb hooks` gives them.
    pub hooks: serde_json::Value,
    /// What to do.
    pub advice: Vec<Advice>,
    /// Events that found no room.
    pub lost_events: u64,
    /// What it cost.
    pub cost: Cost,
    /// Seconds watched.
    pub seconds: f64,
    /// Every layer over the hunt.
    pub layers: Vec<Track>,
}
