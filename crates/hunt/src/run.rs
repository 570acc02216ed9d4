//! One hunt from attach to report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plumb_target::Process;
use plumb_trace::account::Backing;
use plumb_trace::burst::Of;
use plumb_trace::{Frame, Holding, Tracer, events};

use crate::cost::Meter;
use crate::culprits::{self, Hunted};
use crate::growth::{Growth, Verdict};
use crate::objects::Censuses;
use crate::profiles::Profiles;
use crate::report::{Cost, Report};
use crate::{Error, Table, allocators, cost, untraced};

/// What to hunt and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processes named.
    pub roots: Vec<Process>,
    /// Whether children are followed.
    pub children: bool,
    /// How long to watch.
    pub time: Duration,
    /// The one dear floor to look at, from the start; `None` for those where growth shows.
    pub floor: Option<Floor>,
    /// What to do about known culprits.
    pub advice: Table,
}

/// A floor to which a hunt can be pinned. Mappings are watched on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Syscalls that map, and nothing dearer.
    Mappings,
    /// Who touches pages.
    Faults,
    /// Who calls the allocator.
    Heap,
    /// Which Python objects there are.
    Python,
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
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Looking at residency costs at most one part in this of the time.
const RESIDENCY_SHARE: u32 = 100;
/// And asking what became of sampled allocations.
const FATES_SHARE: u32 = 200;

/// After so many refusals CPython's allocator is not asked for any more.
const TRIES: u32 = 4;

/// Hunts until the time is up, the targets have ended, or `stop` is set. `attached` is called when
/// nothing more can be missed.
///
/// Where tracing is refused, the report has no culprits and says so.
///
/// # Errors
/// Targets that may not be read, or that are gone before the attach.
pub fn run(
    options: &Options,
    stop: &AtomicBool,
    attached: impl FnOnce(),
    mut tell: impl FnMut(Progress),
) -> Result<Report, Error> {
    let meter = Meter::start();
    let tracer = match Tracer::attach(&options.roots, options.children) {
        Ok(tracer) => tracer,
        // What this user or this kernel does not allow takes the stacks away, not the rest.
        Err(why) if why.is_refusal() => {
            return untraced::run(options, why.to_string(), meter, stop, attached, tell);
        }
        Err(error) => return Err(error.into()),
    };
    // Beside the trace: while it runs, the ring of the first, whole stacks must be emptied.
    let root = options.roots.first().map(Process::pid);
    let hooks = std::thread::spawn(move || root.and_then(scan));
    let started = Instant::now();
    let mut hunt = Hunt {
        tracer,
        growth: Growth::new(options.roots.clone(), options.children),
        meter,
        next_look: started,
        next_sample: started,
        next_fates: started,
        hooks,
        no_bursts: None,
        no_objects: 0,
        no_objects_why: None,
        objects: Censuses::default(),
        profiles: Profiles::default(),
        floor: options.floor,
    };
    attached();
    hunt.tracer.pump(PUMP);
    hunt.look();
    // A busy machine takes long to attach, and what is judged is the time that was watched.
    let deadline = Instant::now() + options.time;
    while Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = hunt.tracer.burst_due(PUMP.min(left));
        hunt.tracer.pump(wait);
        hunt.tracer.burst();
        if Instant::now() >= hunt.next_look {
            if !hunt.tracer.any_alive() {
                break;
            }
            hunt.look();
            tell(hunt.progress(deadline));
        }
    }
    hunt.tracer.end_bursts();
    hunt.tracer.pump(Duration::ZERO);
    hunt.tracer.sample();
    hunt.report(&options.advice)
}

/// The hooks of a process, as `plumb hooks` prints them; `None` where it cannot be read any more.
pub(crate) fn scan(pid: u32) -> Option<serde_json::Value> {
    let process = Process::open(pid).ok()?;
    serde_json::to_value(plumb_hooks::scan(&process).ok()?).ok()
}

struct Hunt {
    tracer: Tracer,
    growth: Growth,
    meter: Meter,
    next_look: Instant,
    next_sample: Instant,
    next_fates: Instant,
    /// What the first process named looked like at the attach, should it end before the hunt.
    hooks: JoinHandle<Option<serde_json::Value>>,
    /// Why malloc cannot be probed.
    no_bursts: Option<String>,
    /// How often CPython's allocator could not be probed: one that is just starting can be, later.
    no_objects: u32,
    no_objects_why: Option<String>,
    floor: Option<Floor>,
    objects: Censuses,
    profiles: Profiles,
}

impl Hunt {
    /// Looks at the layers (the watcher keeps its own budget), at residency where that is not too
    /// dear, and decides what else must be switched on.
    fn look(&mut self) {
        self.growth.look();
        if Instant::now() >= self.next_sample {
            let before = Instant::now();
            self.tracer.sample();
            self.next_sample = before + before.elapsed() * RESIDENCY_SHARE;
        }
        if Instant::now() >= self.next_fates {
            let before = Instant::now();
            culprits::keep_fates(&mut self.tracer, events::now_ns());
            self.next_fates = before + before.elapsed() * FATES_SHARE;
        }
        self.touch_when_needed();
        self.read_own_profile();
        self.burst_when_needed();
        self.objects.look(self.floor, &self.growth, self.tracer.alive());
        self.next_look = Instant::now() + LOOK;
    }

    /// Growth that no mapping since the attach explains is growth of older ranges, or copies of what a fork
    /// shares: sample who touches them.
    fn touch_when_needed(&mut self) {
        let held: u64 = self.tracer.holdings().iter().map(|h| h.resident).sum();
        let grown = self.growth.grown_private();
        let wanted = self.floor.is_none_or(|f| f == Floor::Faults);
        let pinned = self.floor.is_some();
        let older = grown.saturating_sub(held) > (grown / 10).max(1 << 20);
        if wanted && (pinned || older || self.growth.copied() > 1 << 20) {
            // A refusal leaves the older ranges without touchers, which the report shows.
            self.tracer.sample_faults().ok();
        }
    }

    /// A heap that grows may be profiled by the target itself: then nobody else need ask.
    fn read_own_profile(&mut self) {
        let is_pinned_elsewhere = self.floor.is_some_and(|floor| floor != Floor::Heap);
        let Some((pid, _)) = self.growing_heap().filter(|_| !is_pinned_elsewhere) else { return };
        if let Ok(process) = Process::open(pid) {
            self.profiles.look(&mut self.tracer, &process);
        }
        if self.tracer.burst_of() == Some((pid, Of::Heap)) && self.profiles.tells(pid) {
            self.tracer.forget_bursts();
        }
    }

    /// A heap that grows, or Python's arenas: probe who allocates in bursts.
    fn burst_when_needed(&mut self) {
        let now = self.tracer.burst_of();
        let Some((pid, of)) = self.allocates(now) else { return };
        let is_refused = match of {
            Of::Heap => self.no_bursts.is_some(),
            Of::Objects => self.no_objects >= TRIES,
        };
        if is_refused || now.is_some_and(|(p, o)| p != pid || o == of) {
            return;
        }
        let Ok(process) = Process::open(pid) else { return };
        if of == Of::Heap && self.profiles.tells(pid) {
            return;
        }
        if let Err(why) = self.tracer.burst_on(&process, of) {
            match of {
                Of::Heap => _ = self.no_bursts.get_or_insert(why.to_string()),
                // The census is left.
                Of::Objects => {
                    self.no_objects += 1;
                    self.no_objects_why = Some(why.to_string());
                }
            }
        }
    }

    /// Which allocations of which process to probe. What is probed already goes on, until the other has
    /// grown twice as much.
    fn allocates(&mut self, now: Option<(u32, Of)>) -> Option<(u32, Of)> {
        match self.floor {
            None => {}
            Some(floor @ (Floor::Heap | Floor::Python)) if now.is_none() => {
                let of = if floor == Floor::Heap { Of::Heap } else { Of::Objects };
                return Some((self.most_grown()?, of));
            }
            Some(_) => return None,
        }
        let (mut heap, mut objects) = (self.growth.growing_heap(), self.growth.growing_objects());
        // Its samples may be far apart, and what grew first need not be what grows.
        if now.is_none() || heap.is_none() && objects.is_none() {
            heap = self.growing_heap();
            objects = objects.or_else(|| self.mapped_arenas());
        }
        let objects = objects.filter(|_| self.no_objects < TRIES);
        let (h, o) = (heap.map_or(0, |(_, n)| n), objects.map_or(0, |(_, n)| n));
        let objects_first = match now {
            None => o > h,
            Some((_, Of::Heap)) => o > 2 * h,
            Some((_, Of::Objects)) => o * 2 >= h,
        };
        let (of, grower) = if objects_first { (Of::Objects, objects) } else { (Of::Heap, heap) };
        grower.map(|(pid, _)| (pid, of))
    }

    /// The process that grew most; of several, once one has.
    fn most_grown(&self) -> Option<u32> {
        if let [only] = self.tracer.alive().as_slice() {
            return Some(only.pid());
        }
        let grown = self.growth.counted().filter(|(_, bytes)| *bytes >= 1 << 20);
        grown.max_by_key(|(_, bytes)| *bytes).map(|(pid, _)| pid)
    }

    /// The process that grows and has mapped most for Python's objects, between the ledger's samples, and by
    /// how much it grew.
    fn mapped_arenas(&mut self) -> Option<(u32, u64)> {
        let all = self.tracer.holdings();
        let grown: Vec<(u32, u64)> = self.growth.counted().filter(|(_, n)| *n >= 1 << 20).collect();
        let mapped = grown.into_iter().map(|(pid, grown)| {
            let own = |h: &&Holding| h.pid == pid && h.backing == Backing::Anonymous;
            let own: Vec<Holding> = all.iter().filter(own).copied().collect();
            let bytes = allocators::held(&mut self.tracer, &own, allocators::makes_objects);
            // Where most of it is arenas, those that were there before grew, too.
            (pid, if bytes >= grown / 4 { grown } else { bytes })
        });
        mapped.filter(|(_, bytes)| *bytes >= 1 << 20).max_by_key(|(_, bytes)| *bytes)
    }

    /// The process whose heap grows, and by how much: by the ledger, or, between its samples, by the
    /// kernel's count, of which no mapping but an allocator's is the reason.
    fn growing_heap(&mut self) -> Option<(u32, u64)> {
        if let Some(found) = self.growth.growing_heap() {
            return Some(found);
        }
        let counted: Vec<(u32, u64)> = self.growth.counted().collect();
        let all = self.tracer.holdings();
        for (pid, grown) in counted.into_iter().filter(|(_, grown)| *grown >= 1 << 20) {
            let private = |h: &&Holding| {
                h.pid == pid && matches!(h.backing, Backing::Anonymous | Backing::Brk)
            };
            let own: Vec<Holding> = all.iter().filter(private).copied().collect();
            let mapped = allocators::held(&mut self.tracer, &own, |f, _| !allocators::allocates(f));
            let rest = grown.saturating_sub(mapped);
            if rest >= 1 << 20 {
                return Some((pid, rest));
            }
        }
        None
    }

    /// Anonymous memory that an allocator mapped is its heap, or Python's, though the ledger could not know
    /// it.
    fn name_heap(&mut self, verdict: &mut Verdict) {
        if verdict.summary.layer.as_deref() != Some("anonymous") {
            return;
        }
        let holdings = self.tracer.holdings().into_iter();
        let own: Vec<Holding> = holdings
            .filter(|h| h.pid == verdict.pid)
            .filter(|h| matches!(h.backing, Backing::Anonymous | Backing::Chunk))
            .collect();
        let all: u64 = own.iter().map(|h| h.resident).sum();
        let most = verdict.grown_bytes / 5 * 4;
        let held =
            |tracer: &mut Tracer, is: fn(&[Frame], u64) -> bool| allocators::held(tracer, &own, is);
        if held(&mut self.tracer, |frames, _| allocators::stands_in(frames)) > most {
            verdict.summary.layer = Some("heap".to_owned());
        } else if held(&mut self.tracer, allocators::makes_objects) > most.max(all / 5 * 4) {
            verdict.summary.layer = Some("python".to_owned());
        }
    }

    fn progress(&self, deadline: Instant) -> Progress {
        let counters = self.tracer.counters();
        Progress {
            left_s: deadline.saturating_duration_since(Instant::now()).as_secs_f64(),
            floor: self.floor(),
            events: counters.events,
            lost: counters.lost,
            cores: self.meter.cores(),
        }
    }

    fn floor(&self) -> String {
        let mut floors = vec!["mappings"];
        if self.tracer.samples_faults() {
            floors.push("page faults");
        }
        if self.tracer.burst_samples().is_some() {
            floors.push("allocator calls");
        }
        if !self.objects.is_empty() {
            floors.push("Python objects");
        }
        floors.join(", ")
    }

    fn report(mut self, table: &Table) -> Result<Report, Error> {
        let seconds = self.meter.elapsed().as_secs_f64();
        let (cpu_s, cores) = (self.meter.cpu_s(), self.meter.cores());
        let tracer = &self.tracer;
        let verdict = self.growth.finish(|pid| tracer.ended_ns(pid));
        let mut verdict = verdict.ok_or(Error::NothingSeen)?;
        self.name_heap(&mut verdict);
        let is_heap = verdict.summary.layer.as_deref().is_some_and(|l| l.starts_with("heap"));
        let own = culprits::are_named(&verdict) && is_heap;
        let own = own.then(|| self.profiles.shares(&mut self.tracer, &verdict)).flatten();
        let waited = self.meter.waited();
        let python = self.objects.compare(verdict.pid);
        let (culprits, own_profile, too_few) = match own {
            Some((shares, told)) => (culprits::biggest(shares, "heap"), Some(told), None),
            None => {
                let now_ns = events::now_ns();
                let of = (&verdict, python.as_ref());
                let hunted = Hunted { seconds, waited, no_objects: self.no_objects_why.as_deref() };
                let (named, why) = culprits::name(&mut self.tracer, of, now_ns, &hunted);
                (named, None, why)
            }
        };
        let counters = self.tracer.counters();
        let refused = self.tracer.burst_refused();
        let refused = refused.then(|| "the target makes its malloc's text writable".to_owned());
        let failed = self.tracer.burst_failure();
        // A scan that panicked is as one that could not be made.
        let at_attach = self.hooks.join().ok().flatten();
        let hooks = scan(verdict.pid).or(at_attach).unwrap_or_else(|| serde_json::json!({}));
        Ok(Report {
            advice: table.apply(&verdict, &culprits, &hooks, python.as_ref()),
            verdict,
            may_be_first: culprits::may_be_first(&culprits),
            culprits,
            own_profile,
            python,
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
                not_probed: self.no_bursts.or(refused).or(failed),
                not_traced: None,
                counted_in_kernel: counters.paired,
                waited,
                too_few,
            },
            seconds,
            layers: self.growth.tracks(),
        })
    }
}
