//! One trace of one process tree: events in, holdings and stacks out.

mod bursts;
mod profiled;

pub use profiled::Code;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use plumb_target::{Memory, Pagemap, Process, maps};

use crate::Error;
use crate::account::{Account, Backing, Sizes, StackId};
use crate::burst::Bursts;
use crate::events::{self, Event, Kind, RawStack};
use crate::frames::Frame;
use crate::images::Images;
use crate::probe::{Counters, Probe};
use crate::resident::{self, Holding};
use crate::samples::Kept;
use crate::stacks::UNKNOWN;
use crate::syscalls as sys;

/// A running trace.
#[derive(Debug)]
pub struct Tracer {
    probe: Probe,
    account: Account,
    images: Images,
    parents: HashMap<u32, u32>,
    /// The last holdings of each process, kept when it ends.
    held: HashMap<u32, Vec<Holding>>,
    /// When processes ended, in nanoseconds of `CLOCK_MONOTONIC`.
    ended_ns: HashMap<u32, u64>,
    /// Processes that had ended while others went on.
    past: HashSet<u32>,
    /// Sampled page faults outside of every range made since the attach, by process and stack.
    touched: HashMap<(u32, StackId), u64>,
    /// Sampled page faults that copied a page, which was there already, by process and stack.
    copied: HashMap<(u32, StackId), u64>,
    samples_faults: bool,
    /// What was written to files in memory since the attach, by process and stack.
    written: HashMap<(u32, StackId), Holding>,
    bursts: Option<Bursts>,
    next_burst: Instant,
    last_burst: Instant,
    next_glance: Instant,
    /// What was known last of the allocations that bursts saw.
    fates: Vec<(StackId, Kept)>,
    /// Since when a program that tells of its own samples is listened to, and the events before that.
    telling: Option<(Instant, u64)>,
    /// Events before the burst that is on or coming off.
    burst_events: Option<u64>,
    burst_failure: Option<String>,
    counting: bool,
    rate_since: Instant,
    rate_events: u64,
    records: Vec<u8>,
    ends: Vec<usize>,
    next_space: u32,
    children: bool,
}

/// Records taken from the ring at once: bounds the copy.
const BATCH: usize = 4096;
/// Events a second; 10,000 maps and unmaps a second are 20,000.
const RATE_MAX: f64 = 40_000.0;
/// One page in eight: cheap, and enough for shares.
const FAULT_SHIFT: u32 = 3;

struct Machine;

impl Sizes for Machine {
    fn segment(&self, shmid: u64) -> Option<u64> {
        // SAFETY: an all-zero shmid_ds is valid, and the kernel fills the one it is given.
        unsafe {
            let mut ds: libc::shmid_ds = std::mem::zeroed();
            let id = i32::try_from(shmid).ok()?;
            (libc::shmctl(id, libc::IPC_STAT, &raw mut ds) == 0).then_some(ds.shm_segsz as u64)
        }
    }
}

impl Tracer {
    /// Attaches to processes and, if asked, to their children now and later.
    ///
    /// # Errors
    /// No permission, a kernel that does not take the programs, or a process that is gone.
    pub fn attach(roots: &[Process], children: bool) -> Result<Self, Error> {
        let mut tracer = Self {
            probe: Probe::attach()?,
            account: Account::new(),
            images: Images::default(),
            parents: HashMap::new(),
            held: HashMap::new(),
            ended_ns: HashMap::new(),
            past: HashSet::new(),
            touched: HashMap::new(),
            copied: HashMap::new(),
            samples_faults: false,
            written: HashMap::new(),
            bursts: None,
            next_burst: Instant::now(),
            last_burst: Instant::now(),
            next_glance: Instant::now(),
            fates: Vec::new(),
            telling: None,
            burst_events: None,
            burst_failure: None,
            counting: false,
            rate_since: Instant::now(),
            rate_events: 0,
            records: Vec::new(),
            ends: Vec::new(),
            next_space: 1,
            children,
        };
        for root in roots {
            tracer.watch(root)?;
        }
        // Children are listed once their parents are watched, so that none slips between.
        if children {
            for child in plumb_target::process::tree(roots) {
                if tracer.account.process(child.pid()).is_none() {
                    tracer.watch(&child)?;
                }
            }
        }
        Ok(tracer)
    }

    /// A name for an address space.
    fn new_space(&mut self) -> u32 {
        let space = self.next_space;
        self.next_space += 1;
        space
    }

    fn watch(&mut self, process: &Process) -> Result<(), Error> {
        let space = self.new_space();
        // Reading the images takes long, and must not let the first stacks be without Python. What is
        // mapped meanwhile is read with the first stack.
        self.images.read(process, space, &mut self.probe)?;
        self.probe.watch(process.pid(), space, self.children)?;
        self.account.watch(process.pid(), brk_end(process));
        Ok(())
    }

    /// Waits at most `time` for something urgent, then takes in all that happened.
    pub fn pump(&mut self, time: Duration) {
        self.probe.wait(time);
        while self.pump_batch() == BATCH {}
        self.limit_rate();
    }

    fn pump_batch(&mut self) -> usize {
        let (mut records, mut ends) =
            (std::mem::take(&mut self.records), std::mem::take(&mut self.ends));
        records.clear();
        ends.clear();
        let n = self.probe.drain(BATCH, |record| {
            records.extend_from_slice(record);
            ends.push(records.len());
        });
        let mut start = 0;
        for end in &ends {
            if let Some((event, stack)) = events::parse(&records[start..*end]) {
                self.take(&event, stack.as_ref());
            }
            start = *end;
        }
        self.records = records;
        self.ends = ends;
        n
    }

    fn take(&mut self, event: &Event, raw: Option<&RawStack<'_>>) {
        let stack = match (raw, event.has_stack) {
            (Some(raw), _) => self.images.unwind(event, raw, &mut self.probe),
            (None, true) => self.images.stack(event.stack).unwrap_or_else(|| {
                self.probe.mark_unseen(event.stack);
                UNKNOWN
            }),
            (None, false) => UNKNOWN,
        };
        match event.kind {
            Kind::Fork => {
                self.parents.insert(event.args[0] as u32, event.tgid);
            }
            Kind::Exec => {
                self.images.replace(event.space);
            }
            Kind::Exit => {
                self.probe.forget(event.tgid);
                self.hold_to_the_end(event.tgid);
                self.ended_ns.insert(event.tgid, event.time_ns);
            }
            Kind::Fault => self.touch(event, stack),
            Kind::Alloc => self.allocated(event, stack),
            Kind::Free => self.freed(event.args[0]),
            Kind::Write => self.wrote(event, stack),
            Kind::Stopped => self.release(event.tgid),
            _ => {}
        }
        let maps_code =
            matches!(event.nr, sys::MMAP | sys::MPROTECT) && event.args[2] & sys::PROT_EXEC != 0;
        if event.kind == Kind::SyscallExit && maps_code {
            self.images.code_was_mapped(event.space);
        }
        self.account.apply(event, stack, &Machine);
    }

    /// Adds to what a stack has written to files in memory. What of it is still there nobody knows.
    fn wrote(&mut self, event: &Event, stack: StackId) {
        let fd = event.args[0].cast_signed();
        let process = self.account.process(event.tgid);
        if process.is_some_and(|p| p.memfds.contains_key(&fd)) && resident::is_memfd(event.tgid, fd)
        {
            // Its pages are charged to who made it.
            return;
        }
        let none = Holding {
            pid: event.tgid,
            stack,
            backing: Backing::Written,
            resident: 0,
            mapped: 0,
            count: 0,
            first_ns: event.time_ns,
            last_ns: event.time_ns,
        };
        let sum = self.written.entry((event.tgid, stack)).or_insert(none);
        sum.resident += event.ret.unsigned_abs();
        sum.count += 1;
        sum.last_ns = event.time_ns;
    }

    /// The target stands still because it made probed text writable: the probes come off, and it
    /// goes on.
    fn release(&mut self, pid: u32) {
        if let Some(bursts) = &mut self.bursts {
            bursts.refuse(&mut self.probe);
        }
        if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).ok();
        }
    }

    /// Counts a page that was written in a range older than the attach, or copied in any.
    fn touch(&mut self, event: &Event, stack: StackId) {
        const PRESENT: u64 = 1;
        const WRITE: u64 = 2;
        if event.args[1] & (PRESENT | WRITE) == PRESENT | WRITE {
            *self.copied.entry((event.tgid, stack)).or_default() += 1;
        }
        let new = self.account.process(event.tgid).and_then(|p| p.ranges.at(event.args[0]));
        if event.args[1] & WRITE != 0 && new.is_none() {
            *self.touched.entry((event.tgid, stack)).or_default() += 1;
        }
    }

    /// Reads which pages are resident now, and keeps what each stack holds.
    pub fn sample(&mut self) {
        if self.counting {
            self.take_live();
        }
        let alive: Vec<u32> =
            self.account.processes().filter(|(_, p)| !p.exited).map(|(pid, _)| pid).collect();
        if !alive.is_empty() {
            let ended = self.account.processes().filter(|(_, p)| p.exited);
            self.past.extend(ended.map(|(pid, _)| pid));
        }
        for pid in alive {
            let Ok(process) = Process::open(pid) else {
                self.account.gone(pid);
                continue;
            };
            let opened = (Pagemap::open(&process), Memory::open(&process));
            let (Some(ranges), (Ok(pagemap), Ok(memory))) = (self.account.process(pid), opened)
            else {
                continue;
            };
            let parent = self.parents.get(&pid).and_then(|p| self.account.process(*p));
            let parent_ids: HashSet<u64> = parent
                .filter(|p| !p.exited)
                .map(|p| p.ranges.iter().map(|(_, o)| o.id).collect())
                .unwrap_or_default();
            let has = |id: u64| parent_ids.contains(&id);
            let mut held = resident::holdings(pid, ranges, &pagemap, &memory, &has);
            held.extend(resident::memfds(pid, ranges));
            self.held.insert(pid, held);
        }
    }

    /// What a process has mapped since it was looked at last is as resident as what it had before, now
    /// that it has ended and cannot be asked.
    fn hold_to_the_end(&mut self, pid: u32) {
        if let (Some(process), Some(held)) = (self.account.process(pid), self.held.get_mut(&pid)) {
            resident::extend(held, process);
        }
    }

    /// When a process ended, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn ended_ns(&self, pid: u32) -> Option<u64> {
        self.ended_ns.get(&pid).copied()
    }

    /// Whether a process had ended before the others: what it held is given back.
    pub fn is_past(&self, pid: u32) -> bool {
        self.past.contains(&pid)
    }

    /// Takes over what was paired in the kernel; it is newer than what is known here.
    fn take_live(&mut self) {
        let mut live = self.probe.live();
        live.sort_by_key(|l| l.time_ns);
        for l in live {
            let stack = self.images.stack(l.stack).unwrap_or(UNKNOWN);
            self.account.restore(l.pid, l.start..l.start.saturating_add(l.bytes), stack, l.time_ns);
        }
    }

    /// Above a rate at which telling of each event would cost too much, pairs maps and unmaps in
    /// the kernel from now on.
    fn limit_rate(&mut self) {
        let seconds = self.rate_since.elapsed().as_secs_f64();
        if self.counting || seconds < 1.0 {
            return;
        }
        let events = self.probe.counters().events;
        let rate = (events - self.rate_events) as f64 / seconds;
        (self.rate_since, self.rate_events) = (Instant::now(), events);
        if rate > RATE_MAX {
            self.counting = self.probe.set(|config| config.counting = 1).is_ok();
        }
    }

    /// Whether the target maps so fast that its maps are paired in the kernel: what was mapped
    /// before that and unmapped in part since may then be charged to the wrong stack.
    pub fn counts_in_kernel(&self) -> bool {
        self.counting
    }

    /// What every stack held at the last [`Tracer::sample`], the biggest first.
    pub fn holdings(&self) -> Vec<Holding> {
        let mapped = self.held.values().flatten();
        let mut all: Vec<Holding> = mapped.chain(self.written.values()).copied().collect();
        all.sort_by_key(|h| (std::cmp::Reverse(h.resident), h.pid, h.stack));
        all
    }

    /// Begins to sample who touches pages.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn sample_faults(&mut self) -> Result<(), Error> {
        if self.samples_faults {
            return Ok(());
        }
        self.probe.set(|config| config.fault_shift = FAULT_SHIFT)?;
        self.samples_faults = true;
        Ok(())
    }

    /// Whether page faults are sampled.
    pub fn samples_faults(&self) -> bool {
        self.samples_faults
    }

    /// Who touched pages of a process's older ranges: stacks with the number of sampled faults.
    pub fn older(&self, pid: u32) -> Vec<(StackId, u64)> {
        let of = self.touched.iter().filter(|((p, _), _)| *p == pid);
        of.map(|((_, stack), n)| (*stack, *n)).collect()
    }

    /// Who copied pages of a process by writing to them: stacks with the number of sampled faults.
    pub fn copied(&self, pid: u32) -> Vec<(StackId, u64)> {
        let of = self.copied.iter().filter(|((p, _), _)| *p == pid);
        of.map(|((_, stack), n)| (*stack, *n)).collect()
    }

    /// The watched processes that still run.
    pub fn alive(&self) -> Vec<Process> {
        let running = self.account.processes().filter(|(_, p)| !p.exited);
        running.filter_map(|(pid, _)| Process::open(pid).ok()).collect()
    }

    /// What the programs counted.
    pub fn counters(&self) -> Counters {
        self.probe.counters()
    }

    /// A stack's frames, innermost first, Python's among them.
    pub fn frames(&mut self, id: StackId) -> Vec<Frame> {
        self.images.frames(id)
    }

    /// How many different stacks were seen.
    pub fn stacks(&self) -> usize {
        self.images.stacks()
    }

    /// The ranges of the processes.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Whether any watched process still runs.
    pub fn any_alive(&self) -> bool {
        !self.alive().is_empty()
    }
}

/// Where the heap of the program break ends now, as far as the maps tell.
fn brk_end(process: &Process) -> Option<u64> {
    let maps = maps::read(process).ok()?;
    maps.iter().filter(|m| m.name == "[heap]").map(|m| m.end).max()
}
