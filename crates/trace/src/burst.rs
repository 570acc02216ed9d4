//! Who allocates what stays: probes on malloc for a few milliseconds now and then, and a later look
//! into the heap at what became of what was seen.
//!
//! Only glibc's malloc, whose heap can be walked from outside; only text that equals its file, since
//! taking a probe off writes the file's byte back; and never a function of the mmap family.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use aya::programs::uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope};
use plumb_target::{Image, Memory, Process, ReadMemory, images, maps};

use crate::Error;
use crate::account::StackId;
use crate::probe::Probe;

/// How long probes stay on at once, besides the time that the kernel takes to put them on and off.
pub const BURST: Duration = Duration::from_millis(4);
/// Samples kept; older ones go first.
const SAMPLES: usize = 200_000;
/// Bytes compared with the file before a function is probed.
const COMPARED: usize = 64;

/// Entry programs and the functions that they are for; one program sees all returns.
const FUNCTIONS: [(&str, &str); 3] =
    [("ask_malloc", "malloc"), ("ask_calloc", "calloc"), ("ask_realloc", "realloc")];
const RETURN: &str = "given";

/// An allocation that a burst saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Where.
    pub address: u64,
    /// How many bytes were asked for.
    pub bytes: u64,
    /// By whom.
    pub stack: StackId,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
}

/// What one stack's sampled allocations became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Sampled bytes that are still in use.
    pub bytes: u64,
    /// Sampled allocations that are still in use.
    pub count: u64,
    /// Sampled allocations in all.
    pub sampled: u64,
}

/// Bursts on one process's malloc.
#[derive(Debug)]
pub struct Bursts {
    process: Process,
    library: PathBuf,
    offsets: [u64; 3],
    text: std::ops::Range<u64>,
    links: Vec<(&'static str, UProbeLinkId)>,
    samples: Vec<Sample>,
    /// The target made probed text writable: never again.
    refused: bool,
}

impl Bursts {
    /// Finds malloc in a process and loads the programs.
    ///
    /// # Errors
    /// No malloc of glibc, text that differs from its file, or a kernel that refuses.
    pub fn new(process: &Process, probe: &mut Probe) -> Result<Self, Error> {
        let maps = maps::read(process)?;
        let all = images(process, &maps);
        let malloc = all.iter().find(|image| image.name().starts_with("libc.so"));
        let image = malloc.ok_or_else(|| refusal("malloc", "no shared glibc in the process"))?;
        let mut offsets = [0; 3];
        for ((_, function), offset) in FUNCTIONS.iter().zip(&mut offsets) {
            *offset = checked(process, image, function)?;
        }
        probe.load_bursts()?;
        Ok(Self {
            process: *process,
            library: process.path_in_root(&image.path),
            offsets,
            text: image.range.clone(),
            links: Vec::new(),
            samples: Vec::new(),
            refused: false,
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Puts the probes on. Returns at once; [`Bursts::off`] must follow within [`BURST`].
    ///
    /// # Errors
    /// The kernel's refusal; nothing is left on then.
    pub fn on(&mut self, probe: &mut Probe) -> Result<(), Error> {
        if self.refused {
            return Err(refusal("malloc", "the target changed its text"));
        }
        let text = self.text.clone();
        probe.set(|c| (c.guard_start, c.guard_end) = (text.start, text.end))?;
        let placed = self.place(probe);
        if placed.is_err() {
            self.off(probe);
        }
        placed
    }

    fn place(&mut self, probe: &mut Probe) -> Result<(), Error> {
        let pid = NonZeroU32::new(self.pid()).ok_or_else(|| refusal("malloc", "no pid"))?;
        // Returns first: an entry without its return would leave a size behind.
        let returns = self.offsets.map(|offset| (RETURN, offset));
        let entries = FUNCTIONS.iter().zip(self.offsets).map(|((program, _), at)| (*program, at));
        for (program, offset) in returns.into_iter().chain(entries) {
            let link = probe
                .uprobe(program)?
                .attach(
                    UProbeAttachLocation::AbsoluteOffset(offset),
                    &self.library,
                    UProbeScope::OneProcess(pid),
                )
                .map_err(|e| refusal(program, &e.to_string()))?;
            self.links.push((program, link));
        }
        Ok(())
    }

    /// Takes the probes off.
    pub fn off(&mut self, probe: &mut Probe) {
        for (program, link) in self.links.drain(..) {
            // A link that is gone already is what is wanted.
            if let Ok(uprobe) = probe.uprobe(program) {
                uprobe.detach(link).ok();
            }
        }
        probe.set(|c| (c.guard_start, c.guard_end) = (0, 0)).ok();
    }

    /// The target was stopped because it made probed text writable: takes the probes off for good.
    pub fn refuse(&mut self, probe: &mut Probe) {
        self.off(probe);
        self.refused = true;
    }

    /// Keeps what a burst saw.
    pub fn keep(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES {
            self.samples.drain(..SAMPLES / 2);
        }
        self.samples.push(sample);
    }

    /// Whether the target changed its text, so that nothing is probed any more.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// How many allocations were seen.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// By stack, what of the allocations seen before `until_ns` is still in use. `None` where the
    /// target's memory cannot be read.
    pub fn kept(&self, until_ns: u64) -> Option<Vec<(StackId, Kept)>> {
        let memory = Memory::open(&self.process).ok()?;
        // What was given last at an address is what is there.
        let last: HashMap<u64, &Sample> = self.samples.iter().map(|s| (s.address, s)).collect();
        let mut by = HashMap::<StackId, Kept>::new();
        for s in last.values().filter(|s| s.time_ns <= until_ns) {
            let kept = by.entry(s.stack).or_default();
            kept.sampled += 1;
            if is_live(s, &memory) == Some(true) {
                kept.count += 1;
                kept.bytes += s.bytes;
            }
        }
        Some(by.into_iter().collect())
    }
}

fn refusal(function: &str, why: &str) -> Error {
    Error::Uprobe { function: function.to_owned(), module: "glibc".to_owned(), why: why.to_owned() }
}

/// A function's offset in its file, once its bytes in memory were seen to be the file's.
fn checked(process: &Process, image: &Image, function: &str) -> Result<u64, Error> {
    let symbols = image.symbols()?;
    let symbol = symbols.named(function).filter(|s| s.is_function && !s.is_indirect);
    let address = symbol.ok_or_else(|| refusal(function, "not in its symbol table"))?.address;
    let offset = image.elf.offset_of(address);
    let offset = offset.ok_or_else(|| refusal(function, "not in the file"))?;
    let (mut file, mut memory) = ([0; COMPARED], [0; COMPARED]);
    let read = image.open()?.read_exact_at(&mut file, offset);
    read.map_err(|source| Error::Io { what: "read the C library", source })?;
    Memory::open(process)?.read(address.wrapping_add(image.bias), &mut memory)?;
    if file != memory {
        return Err(refusal(function, "its text in memory differs from its file"));
    }
    Ok(offset)
}

/// Whether the chunk that malloc gave is still in use, by its own header and its neighbour's.
///
/// No walk from the heap's start: a busy heap changes faster than it can be walked. So a chunk that
/// was freed and given again in the same size passes for kept, and so does one whose memory was
/// merged into a neighbour and never written since, and one that waits in a thread's cache (seven a
/// size and thread).
fn is_live(s: &Sample, memory: &impl ReadMemory) -> Option<bool> {
    const PREVIOUS_IN_USE: u64 = 1;
    const MMAPPED: u64 = 2;
    const FLAGS: u64 = 7;
    let chunk = s.address.checked_sub(16)?;
    let header = memory.u64_at(chunk.checked_add(8)?)?;
    let size = header & !FLAGS;
    if header & MMAPPED != 0 {
        return Some(size >= s.bytes && size - s.bytes < 16 * 4096);
    }
    let wanted = s.bytes.checked_add(8 + 15)? & !15;
    if size < wanted.max(32) || size > wanted.max(32) + 16 {
        return Some(false);
    }
    let next = memory.u64_at(chunk.checked_add(size)?.checked_add(8)?)?;
    Some(next & PREVIOUS_IN_USE != 0)
}
