//! What a hunt found, in the form that `--json` prints.

use plumb_trace::Frame;
use serde::Serialize;

use crate::advice::Advice;
use crate::growth::{Track, Verdict};

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
