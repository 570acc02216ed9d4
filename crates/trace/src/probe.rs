//! The BPF programs: loading, attaching, the maps shared with them.
//!
//! Raw tracepoints are attached by name and held by descriptors alone: nothing is written to
//! tracefs or pinned, so that a Plumb that is killed leaves nothing behind.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, HashMap as BpfMap, MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader, Pod};

use crate::Error;
use crate::programs::{self, Programs};
use crate::unwind::Rule;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/plumb.bpf.o");

const PROGRAMS: [(&str, &str); 6] = [
    ("enter", "sys_enter"),
    ("leave", "sys_exit"),
    ("fault", "page_fault_user"),
    ("forked", "sched_process_fork"),
    ("execed", "sched_process_exec"),
    ("exited", "sched_process_exit"),
];

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Target {
    space: u32,
    flags: u32,
}

/// What the programs do, besides following the targets. `struct config`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    /// Pair maps and unmaps in the kernel instead of telling of each.
    pub counting: u32,
    /// Tell of mprotect too.
    pub mprotect: u32,
    /// Sample one page fault in 2 to this power; 0 for none.
    pub fault_shift: u32,
    pad: u32,
    /// The text that carries probes, first address and one past the last; see `bpf/alloc.h`.
    pub guard: [[u64; 2]; crate::allocators::GUARDS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct RuleKey {
    space: u32,
    pad: u32,
    pc: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct RawRule {
    cfa: i32,
    bp: i32,
    flags: u32,
}

/// Where an interpreter keeps its threads and frames: `struct python_layout`. Offsets in bytes;
/// [`PythonLayout::NONE`] where the version has no such field.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PythonLayout {
    pub interpreters: u64,
    pub interp_threads: u32,
    pub interp_next: u32,
    pub thread_next: u32,
    pub thread_id: u32,
    pub thread_frame: u32,
    pub cframe_frame: u32,
    pub frame_back: u32,
    pub frame_code: u32,
    pub frame_instr: u32,
    pub frame_owner: u32,
}

impl PythonLayout {
    /// No such field.
    pub const NONE: u32 = u32::MAX;
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LiveKey {
    tgid: u32,
    pad: u32,
    start: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LiveValue {
    bytes: u64,
    stack: u64,
    time_ns: u64,
}

// SAFETY: plain integers in C layout without implicit padding.
unsafe impl Pod for Target {}
// SAFETY: as above.
unsafe impl Pod for Config {}
// SAFETY: as above.
unsafe impl Pod for RuleKey {}
// SAFETY: as above.
unsafe impl Pod for RawRule {}
// SAFETY: as above.
unsafe impl Pod for PythonLayout {}
// SAFETY: as above.
unsafe impl Pod for LiveKey {}
// SAFETY: as above.
unsafe impl Pod for LiveValue {}

/// What the programs counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events sent.
    pub events: u64,
    /// Events that found no room.
    pub lost: u64,
    /// Stacks copied.
    pub copied: u64,
    /// Maps and unmaps paired in the kernel.
    pub paired: u64,
    /// Samples left out because the ring was half full.
    pub skipped: u64,
}

impl Counters {
    /// Events, whether they found room or not.
    pub fn calls(&self) -> u64 {
        self.events + self.lost
    }
}

/// A range that was mapped while pairing in the kernel, and not unmapped as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Process.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// Length.
    pub bytes: u64,
    /// The stack's name.
    pub stack: u64,
    /// When.
    pub time_ns: u64,
}

const TARGET_PYTHON: u32 = 1;
const TARGET_NO_CHILDREN: u32 = 2;
const TARGET_GO: u32 = 4;
const RULE_END: u32 = 1;
const RULE_BP: u32 = 2;

/// The attached programs.
pub struct Probe {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    targets: BpfMap<MapData, u32, Target>,
    rules: BpfMap<MapData, RuleKey, RawRule>,
    seen: BpfMap<MapData, u64, u32>,
    pythons: BpfMap<MapData, u32, PythonLayout>,
    live: BpfMap<MapData, LiveKey, LiveValue>,
    config: Array<MapData, Config>,
    counters: PerCpuArray<MapData, u64>,
    maps: Vec<(String, OwnedFd)>,
    bursts: Option<Programs>,
    /// Processes that run Go.
    go: HashSet<u32>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

fn take<T>(ebpf: &mut Ebpf, name: &str) -> Result<T, Error>
where
    T: TryFrom<aya::maps::Map>,
    T::Error: std::error::Error + 'static,
{
    let map = ebpf.take_map(name).ok_or_else(|| Error::Load {
        what: name.to_owned(),
        why: "the object has no such map".to_owned(),
    })?;
    T::try_from(map).map_err(|e| Error::load(name, &e))
}

impl Probe {
    /// Loads the programs and attaches them. Nothing is watched yet.
    ///
    /// # Errors
    /// No permission, or a kernel that does not take them.
    pub fn attach() -> Result<Self, Error> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, e)| Error::Io { what: "count processors", source: e })?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("scratch", cpus as u32)
            .load(OBJECT)
            .map_err(|e| Error::load("object", &e))?;
        let maps = programs::maps_of(&ebpf);
        let maps = maps.map_err(|source| Error::Io { what: "keep the maps", source })?;
        let mut probe = Self {
            ring: take(&mut ebpf, "events")?,
            targets: take(&mut ebpf, "targets")?,
            rules: take(&mut ebpf, "rules")?,
            seen: take(&mut ebpf, "seen")?,
            pythons: take(&mut ebpf, "pythons")?,
            live: take(&mut ebpf, "live")?,
            config: take(&mut ebpf, "config")?,
            counters: take(&mut ebpf, "counters")?,
            maps,
            bursts: None,
            go: HashSet::new(),
            ebpf,
        };
        probe.configure(Config::default())?;
        for (program, point) in PROGRAMS {
            probe.start(program, point)?;
        }
        Ok(probe)
    }

    fn start(&mut self, program: &str, point: &str) -> Result<(), Error> {
        let found = self.ebpf.program_mut(program).ok_or_else(|| Error::Load {
            what: program.to_owned(),
            why: "the object has no such program".to_owned(),
        })?;
        let raw: &mut RawTracePoint = found.try_into().map_err(|e| Error::load(program, &e))?;
        raw.load().map_err(|e| Error::load(program, &e))?;
        raw.attach(point).map_err(|e| Error::load(point, &e))?;
        Ok(())
    }

    fn configure(&mut self, config: Config) -> Result<(), Error> {
        self.config.set(0, config, 0).map_err(|e| Error::load("config", &e))
    }

    /// Changes what the programs do.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let mut config = self.config.get(&0, 0).map_err(|e| Error::load("config", &e))?;
        change(&mut config);
        self.configure(config)
    }

    /// Begins to watch a process, in an address space of the caller's naming.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(&mut self, pid: u32, space: u32, children: bool) -> Result<(), Error> {
        let python = self.pythons.get(&pid, 0).is_ok();
        let flags = if python { TARGET_PYTHON } else { 0 }
            | if self.go.contains(&pid) { TARGET_GO } else { 0 }
            | if children { 0 } else { TARGET_NO_CHILDREN };
        self.targets.insert(pid, Target { space, flags }, 0).map_err(|e| Error::load("targets", &e))
    }

    /// Says where a process's interpreter keeps its frames, and has them read once it is watched.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_python(&mut self, pid: u32, layout: PythonLayout) -> Result<(), Error> {
        self.pythons.insert(pid, layout, 0).map_err(|e| Error::load("pythons", &e))?;
        self.flag(pid, TARGET_PYTHON)
    }

    /// Has the goroutines behind a process's runtime read.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_go(&mut self, pid: u32) -> Result<(), Error> {
        if !self.go.insert(pid) {
            return Ok(());
        }
        self.flag(pid, TARGET_GO)
    }

    /// Of one that is not watched yet, [`Probe::watch`] says so.
    fn flag(&mut self, pid: u32, flag: u32) -> Result<(), Error> {
        let Ok(mut target) = self.targets.get(&pid, 0) else { return Ok(()) };
        target.flags |= flag;
        self.targets.insert(pid, target, 0).map_err(|e| Error::load("targets", &e))
    }

    /// The programs of the allocator bursts, which are loaded when they are first needed.
    ///
    /// # Errors
    /// A kernel that does not take them.
    pub fn bursts(&mut self) -> Result<&Programs, Error> {
        let programs = match self.bursts.take() {
            Some(programs) => programs,
            None => Programs::load(OBJECT, &self.maps, true)?,
        };
        Ok(self.bursts.insert(programs))
    }

    /// Has each function probed by itself from the next bursts on, as kernels before 6.6 have it.
    ///
    /// # Errors
    /// A kernel that does not take the programs.
    pub fn keep_apart(&mut self) -> Result<(), Error> {
        self.bursts = Some(Programs::load(OBJECT, &self.maps, false)?);
        Ok(())
    }

    /// Stops watching a process.
    pub fn forget(&mut self, pid: u32) {
        // Absent is what is wanted.
        drop(self.targets.remove(&pid));
        drop(self.pythons.remove(&pid));
        self.go.remove(&pid);
    }

    /// Teaches the kernel a step. A full table only means that more stacks are copied.
    pub fn teach(&mut self, space: u32, pc: u64, rule: Rule) {
        let key = RuleKey { space, pad: 0, pc };
        let raw = match rule {
            Rule::End => RawRule { cfa: 0, bp: 0, flags: RULE_END },
            Rule::Sp { cfa, bp } => RawRule { cfa, bp, flags: 0 },
            Rule::Bp { cfa, bp } => RawRule { cfa, bp, flags: RULE_BP },
            Rule::None => {
                drop(self.rules.remove(&key));
                return;
            }
        };
        drop(self.rules.insert(key, raw, 0));
    }

    /// Says that userland has a stack.
    pub fn mark_seen(&mut self, stack: u64) {
        drop(self.seen.insert(stack, 1, 0));
    }

    /// Says that userland does not have a stack: it will be sent again.
    pub fn mark_unseen(&mut self, stack: u64) {
        drop(self.seen.remove(&stack));
    }

    /// Waits until there is something, or time is up.
    pub fn wait(&self, time: Duration) {
        let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let mut fds =
            [libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one valid entry, for the length of the call.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, millis) };
    }

    /// The descriptor that becomes readable when a stack or a life event came.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer owns the descriptor for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Hands every waiting record to `each`, at most `limit` of them.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while n < limit {
            let Some(record) = self.ring.next() else { break };
            each(&record);
            n += 1;
        }
        n
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        let sum = |i: u32| self.counters.get(&i, 0).map_or(0, |v| v.iter().sum());
        Counters { events: sum(0), lost: sum(1), copied: sum(2), paired: sum(3), skipped: sum(4) }
    }

    /// The ranges that were paired in the kernel and are left.
    pub fn live(&self) -> Vec<Live> {
        let entries = self.live.iter().filter_map(Result::ok);
        entries
            .map(|(k, v)| Live {
                pid: k.tgid,
                start: k.start,
                bytes: v.bytes,
                stack: v.stack,
                time_ns: v.time_ns,
            })
            .collect()
    }
}
