//! How much of what the stacks hold is resident.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use plumb_target::{Pagemap, ReadMemory};

use crate::account::{Backing, Owner, Process, StackId};
use crate::intervals::{Intervals, Piece};

/// What one stack holds in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The process.
    pub pid: u32,
    /// The stack that made the ranges.
    pub stack: StackId,
    /// What they are made of.
    pub backing: Backing,
    /// Resident bytes.
    pub resident: u64,
    /// Mapped bytes.
    pub mapped: u64,
    /// Mappings of which something is left.
    pub count: u64,
    /// When the first and the last of them were made, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// The last.
    pub last_ns: u64,
}

/// Pieces closer than this are asked for in one call, in bytes.
const NEAR: u64 = 1 << 20;

/// Resident bytes of each piece; pieces are in order and do not overlap.
pub fn resident(pagemap: &Pagemap, pieces: &[Piece<Owner>]) -> Vec<u64> {
    let mut out = vec![0; pieces.len()];
    let mut first = 0;
    while first < pieces.len() {
        let mut last = first;
        while pieces.get(last + 1).is_some_and(|(r, _)| r.start - pieces[last].0.end < NEAR) {
            last += 1;
        }
        let whole = pieces[first].0.start..pieces[last].0.end;
        let runs: Vec<Range<u64>> =
            pagemap.resident(&whole).into_iter().map(|run| run.range).collect();
        overlap(&runs, &pieces[first..=last], &mut out[first..=last]);
        first = last + 1;
    }
    out
}

/// Adds to each piece the bytes that runs share with it. Both are in order and disjoint.
fn overlap(runs: &[Range<u64>], pieces: &[Piece<Owner>], out: &mut [u64]) {
    let mut at = 0;
    for ((piece, _), bytes) in pieces.iter().zip(out) {
        while runs.get(at).is_some_and(|r| r.end <= piece.start) {
            at += 1;
        }
        for run in runs[at..].iter().take_while(|r| r.start < piece.end) {
            *bytes += run.end.min(piece.end) - run.start.max(piece.start);
        }
    }
}

/// Smaller requests get no mapping of their own from malloc, in bytes.
const CHUNK_LEAST: u64 = 128 << 10;

/// The pieces that glibc's malloc mapped for one request each: their head says so.
fn chunks(pieces: &[Piece<Owner>], memory: &impl ReadMemory) -> Intervals<()> {
    const MMAPPED: u64 = 2;
    const FLAGS: u64 = 7;
    let large =
        |p: &&Piece<Owner>| p.1.backing == Backing::Anonymous && p.0.end - p.0.start >= CHUNK_LEAST;
    let starts: Vec<u64> = pieces.iter().filter(large).map(|(r, _)| r.start).collect();
    let mut heads = vec![0; starts.len() * 16];
    memory.read_scattered(&starts, 16, &mut heads);
    let mut found = Intervals::default();
    for (start, head) in starts.iter().zip(heads.chunks_exact(16)) {
        let [before, size] =
            [0, 8].map(|i| u64::from_le_bytes(*head[i..].first_chunk().unwrap_or(&[0; 8])));
        let is_one = size & FLAGS == MMAPPED && before < 4096 && size >= CHUNK_LEAST;
        if is_one && let Some(end) = start.checked_add(size & !FLAGS) {
            found.insert(*start..end, ());
        }
    }
    found
}

/// What each stack holds in a process, given which of its mappings a parent still has.
pub fn holdings(
    pid: u32,
    process: &Process,
    pagemap: &Pagemap,
    memory: &impl ReadMemory,
    parent_has: &dyn Fn(u64) -> bool,
) -> Vec<Holding> {
    let pieces: Vec<Piece<Owner>> =
        process.ranges.iter().filter(|(_, o)| !o.inherited || !parent_has(o.id)).collect();
    let bytes = resident(pagemap, &pieces);
    let chunks = chunks(&pieces, memory);
    let backing = |range: &Range<u64>, owner: &Owner| match owner.backing {
        Backing::Anonymous if chunks.at(range.start).is_some() => Backing::Chunk,
        other => other,
    };
    let mut by: HashMap<(StackId, Backing), (Holding, HashMap<u64, ()>)> = HashMap::new();
    for ((range, owner), resident) in pieces.iter().zip(bytes) {
        let backing = backing(range, owner);
        let (h, ids) = by.entry((owner.stack, backing)).or_insert_with(|| {
            let none = Holding {
                pid,
                stack: owner.stack,
                backing,
                resident: 0,
                mapped: 0,
                count: 0,
                first_ns: owner.time_ns,
                last_ns: owner.time_ns,
            };
            (none, HashMap::new())
        });
        h.resident += resident;
        h.mapped += range.end - range.start;
        h.first_ns = h.first_ns.min(owner.time_ns);
        h.last_ns = h.last_ns.max(owner.time_ns);
        if resident > 0 && ids.insert(owner.id, ()).is_none() {
            h.count += 1;
        }
    }
    by.into_values().map(|(h, _)| h).collect()
}

/// What the memfds that a process made since the attach hold, mapped or not.
pub fn memfds(pid: u32, process: &Process) -> Vec<Holding> {
    let held = process.memfds.iter().filter_map(|(fd, (stack, time_ns))| {
        let link = format!("/proc/{pid}/fd/{fd}");
        let name = std::fs::read_link(&link).ok()?;
        // The descriptor may have been closed and given to another file.
        if !name.as_os_str().as_encoded_bytes().starts_with(b"/memfd:") {
            return None;
        }
        let bytes = std::fs::metadata(&link).ok()?.blocks() * 512;
        Some(Holding {
            pid,
            stack: *stack,
            backing: Backing::Memfd,
            resident: bytes,
            mapped: bytes,
            count: 1,
            first_ns: *time_ns,
            last_ns: *time_ns,
        })
    });
    let mut by: HashMap<StackId, Holding> = HashMap::new();
    for h in held {
        let sum = by.entry(h.stack).or_insert(Holding { resident: 0, mapped: 0, count: 0, ..h });
        sum.resident += h.resident;
        sum.mapped += h.mapped;
        sum.count += 1;
        sum.first_ns = sum.first_ns.min(h.first_ns);
        sum.last_ns = sum.last_ns.max(h.last_ns);
    }
    by.into_values().collect()
}
