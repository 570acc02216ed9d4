//! What each stack still holds: the processes' mappings, replayed from syscalls.
//!
//! Pure: events in, ranges with owners out. Residency is asked of the kernel elsewhere. Memory that
//! was there before the attach has no owner here, wherever it moves.

use std::collections::HashMap;
use std::ops::Range;

use crate::events::{Event, Kind};
use crate::intervals::{Intervals, Piece};
use crate::syscalls as sys;

/// A name for a stack: see [`crate::stacks`].
pub type StackId = u32;

/// Who made a range, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The stack of the syscall that made it.
    pub stack: StackId,
    /// One number a mapping, kept when it is split or moved.
    pub id: u64,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What it is made of.
    pub backing: Backing,
    /// Whether a forked child has it from its parent.
    pub inherited: bool,
    /// Where the mapping begins that was made larger by this, if it was: not there where this begins.
    pub head: Option<u64>,
}

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backing {
    /// Private anonymous memory.
    Anonymous,
    /// The program break.
    Brk,
    /// A file, or a descriptor that may be a memfd.
    File,
    /// Pages of a file that were written to in a private mapping.
    Copy,
    /// Shared anonymous memory and System V segments.
    Shared,
    /// A memfd's own pages, held by its descriptor.
    Memfd,
    /// A file in memory that was written to.
    Written,
    /// Private anonymous memory that is one chunk of glibc's malloc.
    Chunk,
}

/// One process's ranges.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Ranges made since the attach.
    pub ranges: Intervals<Owner>,
    /// Set when its first thread ended or its pid is gone.
    pub exited: bool,
    /// Descriptors of memfds made since the attach, with the stack that made them.
    pub memfds: HashMap<i64, (StackId, u64)>,
    brk: Option<u64>,
    /// What a thread's running munmap or mremap took away, in case it fails or moves.
    taken: HashMap<u32, Vec<Piece<Owner>>>,
    /// System V segments by address.
    segments: HashMap<u64, u64>,
}

/// Sizes that only the live machine knows.
pub trait Sizes {
    /// Bytes of a System V segment.
    fn segment(&self, shmid: u64) -> Option<u64>;
}

/// Every process under watch.
#[derive(Debug, Default)]
pub struct Account {
    processes: HashMap<u32, Process>,
    next: u64,
}

const PAGE: u64 = 4096;

fn pages(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE - 1) & !(PAGE - 1)
}

fn span(start: u64, bytes: u64) -> Range<u64> {
    start..start.saturating_add(pages(bytes))
}

impl Account {
    /// Nothing watched.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to watch a process whose program break is `brk`, where known.
    pub fn watch(&mut self, pid: u32, brk: Option<u64>) {
        self.processes.insert(pid, Process { brk, ..Process::default() });
    }

    /// A watched process.
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// Every process that was watched, also those that ended.
    pub fn processes(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.processes.iter().map(|(pid, p)| (*pid, p))
    }

    /// Marks a process as gone.
    pub fn gone(&mut self, pid: u32) {
        if let Some(p) = self.processes.get_mut(&pid) {
            p.exited = true;
        }
    }

    /// Replays one event; `stack` is what its stack was named.
    pub fn apply(&mut self, event: &Event, stack: StackId, sizes: &dyn Sizes) {
        match event.kind {
            Kind::Fork => self.fork(event.tgid, event.args[0] as u32),
            Kind::Exec => {
                self.processes.insert(event.tgid, Process::default());
            }
            Kind::Exit => self.gone(event.tgid),
            Kind::SyscallEnter | Kind::SyscallExit => self.syscall(event, stack, sizes),
            Kind::Fault | Kind::Alloc | Kind::Free | Kind::Stopped | Kind::Write => {}
        }
    }

    /// Puts back a range that was paired in the kernel, see [`crate::probe`].
    pub fn restore(&mut self, pid: u32, range: Range<u64>, stack: StackId, time_ns: u64) {
        self.next += 1;
        let owner = Owner {
            stack,
            id: self.next,
            time_ns,
            backing: Backing::Anonymous,
            inherited: false,
            head: None,
        };
        if let Some(p) = self.processes.get_mut(&pid) {
            p.ranges.insert(range, owner);
        }
    }

    fn fork(&mut self, parent: u32, child: u32) {
        let Some(p) = self.processes.get(&parent) else {
            return;
        };
        let mut copy = Process { brk: p.brk, segments: p.segments.clone(), ..Process::default() };
        for (range, owner) in p.ranges.iter() {
            let inherited = Owner { inherited: true, ..owner };
            copy.ranges.insert(range, inherited);
        }
        self.processes.insert(child, copy);
    }

    fn syscall(&mut self, event: &Event, stack: StackId, sizes: &dyn Sizes) {
        self.next += 1;
        let owner = |backing| Owner {
            stack,
            id: self.next,
            time_ns: event.time_ns,
            backing,
            inherited: false,
            head: None,
        };
        let Some(p) = self.processes.get_mut(&event.tgid) else {
            return;
        };
        let ok = !(-4095..0).contains(&event.ret);
        let at = event.ret.cast_unsigned();
        let [a0, a1, a2, a3, ..] = event.args;
        match (event.kind, event.nr) {
            (Kind::SyscallExit, sys::MMAP) if ok => {
                p.ranges.insert(span(at, a1), owner(backing(a3)));
            }
            (Kind::SyscallExit, sys::BRK) => p.move_brk(at, owner(Backing::Brk)),
            (Kind::SyscallEnter, sys::MUNMAP) => p.take(event.tid, span(a0, a1)),
            (Kind::SyscallEnter, sys::SHMDT) => {
                let bytes = p.segments.get(&a0).copied().unwrap_or(0);
                p.take(event.tid, span(a0, bytes));
            }
            (Kind::SyscallExit, sys::MUNMAP | sys::SHMDT) if !ok => p.put_back(event.tid),
            (Kind::SyscallEnter, sys::MREMAP) => p.take(event.tid, span(a0, a1)),
            (Kind::SyscallExit, sys::MREMAP) if !ok => p.put_back(event.tid),
            (Kind::SyscallExit, sys::MREMAP) => {
                let moved = Move {
                    old: a0,
                    old_bytes: pages(a1),
                    new: at,
                    new_bytes: pages(a2),
                    keeps_old: a3 & sys::MREMAP_DONTUNMAP != 0,
                };
                p.moved(event.tid, &moved, owner(Backing::Anonymous));
            }
            (Kind::SyscallExit, sys::SHMAT) if ok => {
                if let Some(bytes) = sizes.segment(a0) {
                    p.segments.insert(at, bytes);
                    p.ranges.insert(span(at, bytes), owner(Backing::Shared));
                }
            }
            (Kind::SyscallExit, sys::MEMFD_CREATE) if ok => {
                p.memfds.insert(event.ret, (stack, event.time_ns));
            }
            _ => {}
        }
    }
}

/// What made a mapping, by mmap's flags.
fn backing(flags: u64) -> Backing {
    let anonymous = flags & sys::MAP_ANONYMOUS != 0;
    let shared = flags & sys::MAP_TYPE != sys::MAP_PRIVATE;
    match (anonymous, shared) {
        (true, false) => Backing::Anonymous,
        (true, true) => Backing::Shared,
        (false, _) => Backing::File,
    }
}

struct Move {
    old: u64,
    old_bytes: u64,
    new: u64,
    new_bytes: u64,
    keeps_old: bool,
}

impl Process {
    fn take(&mut self, tid: u32, range: Range<u64>) {
        let pieces = self.ranges.remove(range);
        self.taken.insert(tid, pieces);
    }

    fn put_back(&mut self, tid: u32) {
        for (range, owner) in self.taken.remove(&tid).unwrap_or_default() {
            self.ranges.insert(range, owner);
        }
    }

    /// The pages that moved keep their owner; what grew belongs to the stack that grew it.
    fn moved(&mut self, tid: u32, m: &Move, grower: Owner) {
        let pieces = self.taken.remove(&tid).unwrap_or_default();
        let backing = pieces.first().map_or(grower.backing, |(_, o)| o.backing);
        self.ranges.remove(m.new..m.new.saturating_add(m.new_bytes));
        for (range, owner) in pieces {
            if m.keeps_old {
                self.ranges.insert(range.clone(), owner);
            }
            let owner = Owner { head: owner.head.map(|_| m.new), ..owner };
            let from = range.start.saturating_sub(m.old);
            let to = range.end.saturating_sub(m.old).min(m.new_bytes);
            self.ranges.insert(m.new.saturating_add(from)..m.new.saturating_add(to), owner);
        }
        if m.new_bytes > m.old_bytes {
            let grown = m.new.saturating_add(m.old_bytes)..m.new.saturating_add(m.new_bytes);
            self.ranges.insert(grown, Owner { backing, head: Some(m.new), ..grower });
        }
    }

    fn move_brk(&mut self, to: u64, owner: Owner) {
        let Some(from) = self.brk.replace(to) else {
            return;
        };
        let (from, to) = (pages(from), pages(to));
        if to > from {
            self.ranges.insert(from..to, owner);
        } else {
            self.ranges.remove(to..from);
        }
    }
}
