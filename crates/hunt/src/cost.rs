//! What the hunt itself costs.

use plumb_target::Process;
use rustix::time::{ClockId, clock_gettime};

/// Processor seconds of this process so far.
pub fn cpu_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// The clock of the events.
pub fn monotonic_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Our own resident bytes.
pub fn own_rss() -> u64 {
    Process::own().status().map_or(0, |s| s.vm_rss)
}
