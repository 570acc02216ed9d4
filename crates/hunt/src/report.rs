//! What a hunt found, in the form that `--json` prints.

use plumb_trace::{Frame, FrameKind};
use serde::Serialize;

use crate::advice::Advice;
use crate::growth::{Track, Verdict};
use crate::objects::Objects;
use crate::profiles::OwnProfile;

/// A function on a way: what it is, its name, its module, its address where it has no name.
pub(crate) type Step = (FrameKind, Option<String>, Option<String>, Option<u64>);

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
    /// Where this is one function for many stacks: the biggest of them, of which `frames` is the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Way>,
}

/// One of the stacks by which a function came to hold memory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Way {
    /// As a culprit's.
    pub outstanding_bytes: u64,
    /// As a culprit's.
    pub older_bytes: u64,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

impl Culprit {
    /// What it holds in all.
    pub(crate) fn held(&self) -> u64 {
        self.outstanding_bytes + self.older_bytes
    }

    /// The functions that it passed through, innermost first, each once: how deep it recursed, and on
    /// which lines, is no difference. Where `python` those of Python alone, if there are any.
    pub(crate) fn way(&self, python: bool) -> Vec<Step> {
        let mut way: Vec<Step> = Vec::new();
        let python = python && self.frames.iter().any(|f| f.kind == FrameKind::Python);
        for f in self.frames.iter().filter(|f| !python || f.kind == FrameKind::Python) {
            // Files of Python have functions of the same names.
            let holder = if f.kind == FrameKind::Python { &f.file } else { &f.module };
            let step = (f.kind, f.function.clone(), holder.clone(), f.address);
            if !way.contains(&step) {
                way.push(step);
            }
        }
        way
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
        self.share_error = both(self.share_error, other.share_error).map(|e| e.min(1.0));
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
    /// For which part of the time this hunt waited for a processor: much of it, and too little was seen.
    pub waited: f64,
    /// Why who holds a heap cannot be told though allocations were seen.
    pub too_few: Option<String>,
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
    /// Of the first culprits, how many may be the biggest, for all that sampling tells: 1 where the first
    /// is for certain, 0 where there is none.
    pub may_be_first: usize,
    /// Where the target's own profiler said who they are: by which of its dumps.
    pub own_profile: Option<OwnProfile>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &str) -> Culprit {
        let frame = |name: &str| Frame {
            kind: if name.ends_with('*') { FrameKind::Python } else { FrameKind::Native },
            function: Some(name.to_owned()),
            ..Frame::unknown()
        };
        Culprit { frames: names.split(' ').map(frame).collect(), ..Culprit::default() }
    }

    #[test]
    fn depth_is_no_difference_but_functions_are() {
        let way = |names| stack(names).way(false);
        assert_eq!(way("mmap leaf walk walk walk main"), way("mmap leaf walk main"));
        assert_eq!(way("mmap leaf a b a b a main"), way("mmap leaf a b main"));
        assert_ne!(way("mmap leaf walk main"), way("mmap other walk main"));
        let python = |names| stack(names).way(true);
        assert_eq!(
            python("mmap PyTuple_New handle* main*"),
            python("mmap PyList_New handle* main*")
        );
        assert_ne!(python("mmap leaf"), python("mmap other"));
    }
}
