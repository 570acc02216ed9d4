//! What the hunt itself costs.

use std::time::{Duration, Instant};

use plumb_target::Process;
use rustix::time::{ClockId, clock_gettime};

/// What a hunt took since it began.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    cpu_s: f64,
    waited_s: f64,
}

impl Meter {
    /// It begins.
    pub fn start() -> Self {
        Self { started: Instant::now(), cpu_s: cpu_seconds(), waited_s: waited_seconds() }
    }

    /// Time.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Processor seconds.
    pub fn cpu_s(&self) -> f64 {
        cpu_seconds() - self.cpu_s
    }

    /// Processor seconds a second.
    pub fn cores(&self) -> f64 {
        self.cpu_s() / self.elapsed().as_secs_f64().max(1e-3)
    }

    /// For which part of the time this hunt waited for a processor.
    pub fn waited(&self) -> f64 {
        (waited_seconds() - self.waited_s) / self.elapsed().as_secs_f64().max(1e-3)
    }
}

/// Seconds for which the thread that hunts waited for a processor so far.
fn waited_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    waited_ns.unwrap_or(0.0) / 1e9
}

/// Processor seconds of this process so far.
fn cpu_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Our own resident bytes.
pub fn own_rss() -> u64 {
    Process::own().status().map_or(0, |s| s.vm_rss)
}
