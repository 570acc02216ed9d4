//! Who allocates what stays: probes on the allocator for a few milliseconds now and then, and a later
//! look into the heap at what became of what was seen.
//!
//! Which functions, and where they must not be probed, [`crate::allocators`] knows.

use std::collections::HashSet;
use std::time::Duration;

use plumb_target::{Memory, Process, ReadMemory};

use crate::Error;
use crate::account::StackId;
use crate::allocators::{self, Allocators, Ask, Point, Taking, refusal};
use crate::followed;
use crate::headers::Headers;
use crate::keeper::{Keeper, Link, Placement};
use crate::objects::{Objects, Seen, Which};
use crate::probe::Probe;
use crate::programs::Programs;
use crate::samples::{Fate, Kept, Sample, Samples};
use crate::usdt::Told;

/// How long all probes stay on at once. Where the kernel has links of many, that is all; elsewhere a
/// function's own are on for as long as it takes to put the others on and off as well, the busiest
/// functions' the shortest.
pub const BURST: Duration = Duration::from_millis(4);

/// Whether there are more and more of Python's objects of the type of this name: who makes others, keeps none.
pub type Grows<'a> = &'a dyn Fn(&str) -> bool;

/// Functions probed by a kernel that puts each probe on by itself.
const SINGLY_MOST: usize = 16;

/// Whose allocations are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The heap's.
    Heap,
    /// CPython's, of objects in its arenas.
    Objects,
}

/// Bursts on one process's allocator.
#[derive(Debug)]
pub struct Bursts {
    process: Process,
    allocators: Allocators,
    takings: Vec<Taking>,
    keeper: Keeper,
    links: Vec<Link>,
    samples: Samples,
    of: Of,
    /// Whether the probes are those by which the program tells of its own samples: these stay on.
    tells: bool,
    /// The target made probed text writable: never again.
    refused: bool,
    /// What is known of CPython's objects.
    objects: Option<Objects>,
}

impl Bursts {
    /// Finds the allocator of a process and loads the programs.
    ///
    /// # Errors
    /// None that can be probed, text that differs from its file, or a kernel that refuses.
    pub fn new(process: &Process, of: Of, probe: &mut Probe) -> Result<Self, Error> {
        let mut allocators = match of {
            Of::Heap => allocators::find(process)?,
            Of::Objects => crate::python::allocator::find(process)?,
        };
        let tells = !allocators.told.is_empty();
        let together = probe.bursts()?.together();
        let mut takings = Vec::new();
        let mut seen = if allocators.frees.is_empty() { Seen::Made } else { Seen::Given };
        if let Some(copies) = allocators.copies.take().filter(|_| together) {
            (allocators.points, takings, seen) = (copies.points, copies.takings, Seen::Taken);
        }
        if !together {
            // One after the other takes long: the last named are the busiest.
            let points = &mut allocators.points;
            points.drain(..points.len().saturating_sub(SINGLY_MOST));
        }
        let keeper = Keeper::start(together).map_err(|e| refusal("malloc", &e.to_string()))?;
        Ok(Self {
            process: *process,
            allocators,
            takings,
            keeper,
            links: Vec::new(),
            samples: Samples::default(),
            of,
            tells,
            refused: false,
            objects: (of == Of::Objects).then(|| Objects::of(process, seen)),
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whose allocations are probed.
    pub fn of(&self) -> Of {
        self.of
    }

    /// Whether the program tells of its allocations by itself: then its probes may stay on.
    pub fn tells(&self) -> bool {
        self.tells
    }

    /// Whether the probes are the program's own, on all the time or in bursts.
    fn listens(&self) -> bool {
        self.tells || self.allocators.points.is_empty()
    }

    /// The program tells too much, or nothing: from now on there are bursts, of the allocator's functions
    /// where these are known.
    pub fn stop_telling(&mut self) {
        self.off();
        self.tells = false;
        if self.samples.seen() == 0 {
            self.allocators.told.clear();
        }
        self.samples = Samples::default();
    }

    /// Puts the probes on. Returns at once; [`Bursts::off`] must follow within [`BURST`], and
    /// [`Bursts::wait_off`] before the next.
    ///
    /// # Errors
    /// The kernel's refusal; nothing is left on then.
    pub fn on(&mut self, probe: &mut Probe) -> Result<(), Error> {
        if self.refused {
            return Err(refusal("malloc", "the target changed its text"));
        }
        let text = &self.allocators.text;
        probe.set(|c| {
            for (guard, range) in c.guard.iter_mut().zip(text) {
                *guard = [range.start, range.end];
            }
        })?;
        if let Some(objects) = &mut self.objects {
            objects.prepare();
        }
        self.samples.begin();
        let placed = self.place(probe.bursts()?);
        if placed.is_err() {
            self.wait_off(probe);
        }
        placed
    }

    fn place(&mut self, programs: &Programs) -> Result<(), Error> {
        let pid = self.pid();
        let listens = self.listens();
        let (keeper, links) = (&mut self.keeper, &mut self.links);
        if listens {
            self.samples.sees_ends = true;
            for told in &self.allocators.told {
                let Told { offset, cookie, counter, .. } = *told;
                let places = [Placement { offset, cookie, counter }];
                let on = keeper.on(
                    programs.told(told.alloc),
                    (told.path.as_path(), &places),
                    false,
                    pid,
                    links,
                );
                on.map_err(|e| refusal("otel_memory", &e.to_string()))?;
            }
            return Ok(());
        }
        // Before all: an end that is not seen makes what was seen look kept.
        for frees in self.allocators.frees.chunk_by(|a, b| a.path == b.path) {
            let places: Vec<Placement> = frees
                .iter()
                .map(|f| Placement { offset: f.offset, cookie: f.has_context.into(), counter: 0 })
                .collect();
            let at = (frees[0].path.as_path(), places.as_slice());
            let on = keeper.on(programs.free(), at, false, pid, links);
            on.map_err(|e| refusal("free", &e.to_string()))?;
        }
        self.samples.sees_ends = !self.allocators.frees.is_empty();
        // Returns first: an entry without its return would leave a size behind.
        for points in self.allocators.points.chunk_by(|a, b| a.path == b.path) {
            let (entries, returns) = cookies(points);
            let path = points[0].path.as_path();
            for (program, places, at_return) in
                [(programs.leave(), &returns, true), (programs.entry(), &entries, false)]
            {
                let on = keeper.on(program, (path, places), at_return, pid, links);
                on.map_err(|e| refusal("malloc", &e.to_string()))?;
            }
        }
        for takings in self.takings.chunk_by(|a, b| a.path == b.path) {
            let taken = |t: &Taking| Placement {
                offset: t.offset,
                cookie: u64::from(t.register) << FUNCTION | Ask::Taken as u64,
                counter: 0,
            };
            let places: Vec<Placement> = takings.iter().map(taken).collect();
            let at = (takings[0].path.as_path(), places.as_slice());
            let on = keeper.on(programs.entry(), at, false, pid, links);
            on.map_err(|e| refusal("malloc", &e.to_string()))?;
        }
        Ok(())
    }

    /// Begins to take the probes off, the last first.
    pub fn off(&mut self) {
        self.keeper.off(self.links.drain(..).rev());
    }

    /// Whether the probes of the last burst are off.
    pub fn is_off(&mut self, probe: &mut Probe) -> bool {
        if self.links.is_empty() && self.keeper.is_leaving() && self.keeper.is_off() {
            unguard(probe);
        }
        self.links.is_empty() && !self.keeper.is_leaving()
    }

    /// Waits until the probes are off.
    pub fn wait_off(&mut self, probe: &mut Probe) {
        self.off();
        self.keeper.wait_off();
        unguard(probe);
    }

    /// The target was stopped because it made probed text writable: takes the probes off for good.
    pub fn refuse(&mut self, probe: &mut Probe) {
        self.wait_off(probe);
        self.refused = true;
    }

    /// Whether the target changed its text, so that nothing is probed any more.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// What was seen.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Where what is seen is put.
    pub fn samples_mut(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// Whether the process can be asked what became of its allocations: not once it has ended.
    pub fn can_ask(&self) -> bool {
        let text = self.allocators.text.first().map_or(0, |text| text.start);
        Memory::open(&self.process).is_ok_and(|memory| memory.u64_at(text).is_some())
    }

    /// Looks which of the allocations seen are free at this moment, where their allocator can be asked.
    pub fn look(&mut self) {
        if self.listens() || self.samples.seen() == 0 || !self.can_ask() {
            return;
        }
        if let Some(objects) = &mut self.objects {
            objects.look(&mut self.samples, Which::All);
        } else if self.allocators.glibc
            && let Ok(memory) = Memory::open(&self.process)
        {
            let headers = Headers::read(addresses(&self.samples), &memory);
            self.samples.look(&mut |address, sample| {
                fate(address, sample, &headers).unwrap_or(Fate::InUse)
            });
        }
    }

    /// Marks the objects that were seen since the last time: all while the probes are on, and no older ones
    /// than this when they go.
    pub fn mark(&mut self, age: Option<Duration>) {
        if let Some(objects) = &mut self.objects {
            objects.mark(&mut self.samples, age);
        }
    }

    /// The same of the last burst's objects only, which is cheap.
    pub fn look_at_last(&mut self) {
        if let Some(objects) = self.objects.as_mut().filter(|_| self.samples.seen() > 0) {
            objects.look(&mut self.samples, Which::Last);
        }
    }

    /// By stack, what of the allocations seen before `until_ns` is still in use. Of an allocator that
    /// cannot be asked, and of a process that is gone, what was not seen to be given again counts as in
    /// use.
    pub fn kept(&self, until_ns: u64, grows: Grows<'_>) -> Vec<(StackId, Kept)> {
        if let Some(objects) = &self.objects {
            // As it was at the last look. What is no object has no type.
            let mut followed = self.samples.followed(until_ns);
            let kinds: HashSet<u64> = followed.keys().map(|(_, (_, kind))| *kind).collect();
            let still = |kind: &u64| objects.name(*kind).is_some_and(|name| !grows(&name));
            let still: HashSet<u64> = kinds.into_iter().filter(|k| *k != 0).filter(still).collect();
            followed.retain(|(_, (_, kind)), _| !still.contains(kind));
            return followed::kept(&followed);
        }
        let asks = self.allocators.glibc && !self.listens() && self.can_ask();
        let memory = Memory::open(&self.process).ok().filter(|_| asks);
        let headers = memory.map(|memory| Headers::read(addresses(&self.samples), &memory));
        self.samples.kept(until_ns, |address, sample| match &headers {
            Some(headers) => fate(address, sample, headers).unwrap_or(Fate::Freed),
            None => Fate::InUse,
        })
    }
}

fn addresses(samples: &Samples) -> impl Iterator<Item = u64> {
    samples.tracked().map(|(address, _)| address)
}

/// From which bit on a cookie says which function, or which register.
const FUNCTION: u64 = 8;

/// Offsets with the cookies of `asks`, and of `gives`.
fn cookies(points: &[Point]) -> (Vec<Placement>, Vec<Placement>) {
    let numbered = || (0..).zip(points);
    let place = |p: &Point, cookie| Placement { offset: p.offset, cookie, counter: 0 };
    let entry = |(n, p): (u64, &Point)| Some(place(p, n << FUNCTION | p.entry? as u64));
    let leave = |(n, p): (u64, &Point)| place(p, n << FUNCTION | p.leave as u64);
    (numbered().filter_map(entry).collect(), numbered().map(leave).collect())
}

impl Drop for Bursts {
    fn drop(&mut self) {
        self.off();
    }
}

/// Nothing is probed: the target may write where it likes.
fn unguard(probe: &mut Probe) {
    // A kernel that refuses leaves the guard on: the target is stopped once more, and goes on.
    probe.set(|c| c.guard = Default::default()).ok();
}

/// Whether the chunk that malloc gave is still in use, by its own header and its neighbour's.
///
/// No walk from the heap's start: a busy heap changes faster than it can be walked. So a chunk that
/// was freed and given again in the same size passes for in use, and so does one whose memory was
/// merged into a neighbour and never written since, and one that waits in a thread's cache (seven a
/// size and thread). [`Kept::survival`] tells such stacks.
fn fate(address: u64, s: &Sample, memory: &impl ReadMemory) -> Option<Fate> {
    const PREVIOUS_IN_USE: u64 = 1;
    const MMAPPED: u64 = 2;
    const FLAGS: u64 = 7;
    let chunk = address.checked_sub(16)?;
    let header = memory.u64_at(chunk.checked_add(8)?)?;
    let size = header & !FLAGS;
    if header & MMAPPED != 0 {
        return Some(if size >= s.bytes { Fate::Mapped } else { Fate::Freed });
    }
    let wanted = s.bytes.checked_add(8 + 15)? & !15;
    if size < wanted.max(32) || size > wanted.max(32) + 16 {
        return Some(Fate::Freed);
    }
    let next = memory.u64_at(chunk.checked_add(size)?.checked_add(8)?)?;
    Some(if next & PREVIOUS_IN_USE != 0 { Fate::InUse } else { Fate::Freed })
}
