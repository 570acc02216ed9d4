//! One hunt from attach to report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumb_target::Process;
use plumb_trace::Tracer;

use crate::Error;
use crate::report::{Cost, Culprit, Report};

/// What to hunt and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processes named.
    pub roots: Vec<Process>,
    /// Whether children are followed.
    pub children: bool,
    /// How long to watch.
    pub time: Duration,
}

/// What a hunt is doing, told a few times a second.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Seconds left.
    pub left_s: f64,
    /// Events so far.
    pub events: u64,
    /// Events lost so far.
    pub lost: u64,
}

/// Hunts until the time is up, the targets have ended, or `stop` is set.
///
/// # Errors
/// No permission, or targets that are gone before the attach.
pub fn run(
    options: &Options,
    stop: &AtomicBool,
    mut tell: impl FnMut(Progress),
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut tracer = Tracer::attach(&options.roots, options.children)?;
    let mut next_sample = started;
    while started.elapsed() < options.time && !stop.load(Ordering::Relaxed) && tracer.any_alive() {
        tracer.pump(Duration::from_millis(100));
        if Instant::now() >= next_sample {
            let before = Instant::now();
            tracer.sample();
            next_sample = Instant::now() + (before.elapsed() * 50).max(Duration::from_secs(1));
            let counters = tracer.counters();
            let left = options.time.saturating_sub(started.elapsed());
            tell(Progress {
                left_s: left.as_secs_f64(),
                events: counters.events,
                lost: counters.lost,
            });
        }
    }
    tracer.pump(Duration::ZERO);
    tracer.sample();
    Ok(report(&mut tracer, started.elapsed()))
}

fn report(tracer: &mut Tracer, watched: Duration) -> Report {
    let holdings = tracer.holdings();
    let total: u64 = holdings.iter().map(|h| h.resident).sum();
    let culprits = holdings
        .iter()
        .filter(|h| h.resident > 0)
        .take(20)
        .map(|h| Culprit {
            pid: h.pid,
            outstanding_bytes: h.resident,
            older_bytes: 0,
            count: h.count,
            share: (total > 0).then(|| h.resident as f64 / total as f64),
            age_s: None,
            frames: tracer.frames(h.stack),
        })
        .collect();
    let counters = tracer.counters();
    Report {
        verdict: serde_json::Value::Null,
        culprits,
        hooks: serde_json::Value::Null,
        advice: Vec::new(),
        lost_events: counters.lost,
        cost: Cost {
            events: counters.events,
            stacks_copied: counters.copied,
            counted_in_kernel: counters.paired,
            ..Cost::default()
        },
        seconds: watched.as_secs_f64(),
    }
}
