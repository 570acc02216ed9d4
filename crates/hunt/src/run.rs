//! One hunt from attach to report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumb_target::Process;
use plumb_trace::Tracer;
use plumb_trace::account::Backing;

use crate::culprits;
use crate::growth::Growth;
use crate::report::{Cost, Report};
use crate::{Error, Table, cost};

/// What to hunt and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processes named.
    pub roots: Vec<Process>,
    /// Whether children are followed.
    pub children: bool,
    /// How long to watch.
    pub time: Duration,
    /// What to do about known culprits.
    pub advice: Table,
}

/// What a hunt is doing, told about once a second.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Seconds left.
    pub left_s: f64,
    /// What it looks at.
    pub floor: String,
    /// Events so far.
    pub events: u64,
    /// Events lost so far.
    pub lost: u64,
    /// Share of a core that the hunt itself takes.
    pub cores: f64,
}

/// How often the ring is emptied: fewer wake-ups are cheaper, and the ring holds seconds.
const PUMP: Duration = Duration::from_millis(100);
/// How often layers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looking at residency costs at most one part in this of the time.
const BUDGET: u32 = 40;

/// Hunts until the time is up, the targets have ended, or `stop` is set. `attached` is called when
/// nothing more can be missed.
///
/// # Errors
/// No permission, or targets that are gone before the attach.
pub fn run(
    options: &Options,
    stop: &AtomicBool,
    attached: impl FnOnce(),
    mut tell: impl FnMut(Progress),
) -> Result<Report, Error> {
    let started = Instant::now();
    let cpu = cost::cpu_seconds();
    // Before the attach: while it runs nothing would empty the ring of the first, whole stacks.
    let hooks = options.roots.first().and_then(|p| scan(p.pid()));
    let mut hunt = Hunt {
        tracer: Tracer::attach(&options.roots, options.children)?,
        growth: Growth::new(options.roots.clone(), options.children),
        started,
        cpu,
        next_look: started,
        next_sample: started,
        hooks,
        no_bursts: None,
    };
    attached();
    hunt.tracer.pump(PUMP);
    hunt.look();
    while started.elapsed() < options.time && !stop.load(Ordering::Relaxed) {
        let left = options.time.saturating_sub(started.elapsed());
        hunt.tracer.pump(PUMP.min(left));
        hunt.tracer.burst();
        if Instant::now() >= hunt.next_look {
            if !hunt.tracer.any_alive() {
                break;
            }
            hunt.look();
            tell(hunt.progress(options.time));
        }
    }
    hunt.tracer.pump(Duration::ZERO);
    hunt.tracer.sample();
    hunt.report(&options.advice)
}

/// The hooks of a process, as `plumb hooks` prints them; `None` where it cannot be read any more.
fn scan(pid: u32) -> Option<serde_json::Value> {
    let process = Process::open(pid).ok()?;
    serde_json::to_value(plumb_hooks::scan(&process).ok()?).ok()
}

struct Hunt {
    tracer: Tracer,
    growth: Growth,
    started: Instant,
    cpu: f64,
    next_look: Instant,
    next_sample: Instant,
    /// What the first process named looked like at the attach, should it end before the hunt.
    hooks: Option<serde_json::Value>,
    /// Why malloc cannot be probed.
    no_bursts: Option<String>,
}

impl Hunt {
    /// Looks at the layers (the watcher keeps its own budget), at residency where that is not too
    /// dear, and decides what else must be switched on.
    fn look(&mut self) {
        self.growth.look();
        if Instant::now() >= self.next_sample {
            let before = Instant::now();
            self.tracer.sample();
            self.next_sample = before + before.elapsed() * BUDGET;
        }
        self.touch_when_needed();
        self.burst_when_needed();
        self.next_look = Instant::now() + LOOK;
    }

    /// Growth that no mapping since the attach explains is growth of older ranges: sample who
    /// touches them.
    fn touch_when_needed(&mut self) {
        let held: u64 = self.tracer.holdings().iter().map(|h| h.resident).sum();
        let grown = self.growth.grown_private();
        if grown.saturating_sub(held) > (grown / 10).max(1 << 20) {
            // A refusal leaves the older ranges without touchers, which the report shows.
            self.tracer.sample_faults().ok();
        }
    }

    /// A heap that grows: probe its malloc in bursts.
    fn burst_when_needed(&mut self) {
        if self.tracer.burst_samples().is_some() || self.no_bursts.is_some() {
            return;
        }
        let Some(pid) = self.growing_heap() else { return };
        if let Ok(process) = Process::open(pid)
            && let Err(why) = self.tracer.burst_on(&process)
        {
            self.no_bursts.get_or_insert(why.to_string());
        }
    }

    /// The process whose heap grows: by the ledger, or, between its samples, by the program break.
    fn growing_heap(&self) -> Option<u32> {
        let by_break = || {
            let held = self.tracer.holdings();
            let broken = held.iter().filter(|h| h.backing == Backing::Brk);
            broken.filter(|h| h.resident >= 1 << 20).map(|h| h.pid).next()
        };
        self.growth.growing_heap().map(|(pid, _)| pid).or_else(by_break)
    }

    fn progress(&self, time: Duration) -> Progress {
        let counters = self.tracer.counters();
        Progress {
            left_s: time.saturating_sub(self.started.elapsed()).as_secs_f64(),
            floor: self.floor(),
            events: counters.events,
            lost: counters.lost,
            cores: self.cores(),
        }
    }

    fn floor(&self) -> String {
        let mut floors = vec!["mappings"];
        if self.tracer.samples_faults() {
            floors.push("page faults");
        }
        if self.tracer.burst_samples().is_some() {
            floors.push("malloc");
        }
        floors.join(", ")
    }

    fn cores(&self) -> f64 {
        (cost::cpu_seconds() - self.cpu) / self.started.elapsed().as_secs_f64().max(1e-3)
    }

    fn report(mut self, table: &Table) -> Result<Report, Error> {
        let seconds = self.started.elapsed().as_secs_f64();
        let (cpu_s, cores) = (cost::cpu_seconds() - self.cpu, self.cores());
        let verdict = self.growth.finish().ok_or(Error::NothingSeen)?;
        let culprits = culprits::name(&mut self.tracer, &verdict, cost::monotonic_ns());
        let counters = self.tracer.counters();
        let refused = self.tracer.burst_refused();
        let refused = refused.then(|| "the target makes its malloc's text writable".to_owned());
        let hooks = scan(verdict.pid).or(self.hooks);
        let hooks = hooks.unwrap_or_else(|| serde_json::json!({}));
        Ok(Report {
            advice: table.apply(&verdict, &culprits, &hooks),
            verdict,
            culprits,
            hooks,
            lost_events: counters.lost,
            cost: Cost {
                cpu_s,
                cores,
                paired_in_kernel: self.tracer.counts_in_kernel(),
                rss_bytes: cost::own_rss(),
                events: counters.events,
                stacks_copied: counters.copied,
                allocations_sampled: self.tracer.burst_samples().unwrap_or(0) as u64,
                not_probed: self.no_bursts.or(refused),
                counted_in_kernel: counters.paired,
            },
            seconds,
            layers: self.growth.tracks(),
        })
    }
}
