//! How much of what the stacks hold is resident.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use plumb_target::pagemap::Run;
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

/// What of a piece is resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes.
    pub bytes: u64,
    /// Those of them that are the process's own: no file's and no shared memory's.
    pub own: u64,
    /// Whether its first page is.
    pub head: bool,
}

/// What of each piece is resident; pieces are in order and do not overlap.
pub fn resident(pagemap: &Pagemap, pieces: &[Piece<Owner>]) -> Vec<Found> {
    let mut out = vec![Found::default(); pieces.len()];
    let mut first = 0;
    while first < pieces.len() {
        let mut last = first;
        while pieces.get(last + 1).is_some_and(|(r, _)| r.start - pieces[last].0.end < NEAR) {
            last += 1;
        }
        let whole = pieces[first].0.start..pieces[last].0.end;
        overlap(&pagemap.resident(&whole), &pieces[first..=last], &mut out[first..=last]);
        first = last + 1;
    }
    out
}

/// Adds to each piece what runs share with it. Both are in order and disjoint.
fn overlap(runs: &[Run], pieces: &[Piece<Owner>], out: &mut [Found]) {
    let mut at = 0;
    for ((piece, _), found) in pieces.iter().zip(out) {
        while runs.get(at).is_some_and(|r| r.range.end <= piece.start) {
            at += 1;
        }
        for run in runs[at..].iter().take_while(|r| r.range.start < piece.end) {
            let bytes = run.range.end.min(piece.end) - run.range.start.max(piece.start);
            found.bytes += bytes;
            found.own += if run.file { 0 } else { bytes };
            found.head |= run.range.contains(&piece.start);
        }
    }
}

/// Smaller requests get no mapping of their own from malloc, in bytes.
const CHUNK_LEAST: u64 = 128 << 10;

/// The pieces that glibc's malloc mapped for one request each: their head says so. What is not resident
/// is not read: reading gives the target a page of zeros and the page table that it needs.
fn chunks(pieces: &[Piece<Owner>], found: &[Found], memory: &impl ReadMemory) -> Intervals<()> {
    const MMAPPED: u64 = 2;
    const FLAGS: u64 = 7;
    let starts = pieces.iter().zip(found).filter(|((range, owner), found)| {
        // What made a mapping larger was written to because its head was.
        let is_large = range.end - range.start >= CHUNK_LEAST || owner.head.is_some();
        found.head && is_large && owner.backing == Backing::Anonymous
    });
    let starts = starts.map(|((range, owner), _)| owner.head.unwrap_or(range.start));
    let mut starts: Vec<u64> = starts.collect();
    starts.dedup();
    let mut heads = vec![0; starts.len() * 16];
    memory.read_scattered(&starts, 16, &mut heads);
    let mut chunks = Intervals::default();
    for (start, head) in starts.iter().zip(heads.chunks_exact(16)) {
        let [before, size] =
            [0, 8].map(|i| u64::from_le_bytes(*head[i..].first_chunk().unwrap_or(&[0; 8])));
        let is_one = size & FLAGS == MMAPPED && before < 4096 && size >= CHUNK_LEAST;
        if is_one && let Some(end) = start.checked_add(size & !FLAGS) {
            chunks.insert(*start..end, ());
        }
    }
    chunks
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
    let found = resident(pagemap, &pieces);
    let chunks = chunks(&pieces, &found, memory);
    let backing = |range: &Range<u64>, owner: &Owner| match owner.backing {
        Backing::Anonymous if chunks.at(range.start).is_some() => Backing::Chunk,
        other => other,
    };
    let mut by: HashMap<(StackId, Backing), (Holding, HashMap<u64, ()>)> = HashMap::new();
    let mut add = |owner: &Owner, backing: Backing, resident: u64, mapped: u64| {
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
        h.mapped += mapped;
        h.first_ns = h.first_ns.min(owner.time_ns);
        h.last_ns = h.last_ns.max(owner.time_ns);
        if resident > 0 && ids.insert(owner.id, ()).is_none() {
            h.count += 1;
        }
    };
    for ((range, owner), found) in pieces.iter().zip(&found) {
        // What was written to in a private mapping of a file is the process's own.
        let copied = if owner.backing == Backing::File { found.own } else { 0 };
        let backing = backing(range, owner);
        add(owner, backing, found.bytes - copied, range.end - range.start - copied);
        if copied > 0 {
            add(owner, Backing::Copy, copied, copied);
        }
    }
    by.into_values().map(|(h, _)| h).collect()
}

/// Takes in what a process's stacks have mapped since their holdings were read: resident in the same part.
/// What was given back since then is not taken off, as that may be how it ended.
pub fn extend(held: &mut [Holding], process: &Process) {
    let mut mapped: HashMap<StackId, u64> = HashMap::new();
    for (range, owner) in process.ranges.iter().filter(|(_, owner)| !owner.inherited) {
        *mapped.entry(owner.stack).or_default() += range.end - range.start;
    }
    let mut before: HashMap<StackId, u64> = HashMap::new();
    for h in held.iter().filter(|h| is_of_ranges(h.backing)) {
        *before.entry(h.stack).or_default() += h.mapped;
    }
    for h in held.iter_mut().filter(|h| is_of_ranges(h.backing)) {
        let (was, is) = (before[&h.stack], mapped.get(&h.stack).copied().unwrap_or(0));
        if was > 0 && is > was {
            let scaled = |n: u64| (u128::from(n) * u128::from(is) / u128::from(was)) as u64;
            (h.resident, h.mapped, h.count) =
                (scaled(h.resident), scaled(h.mapped), scaled(h.count));
        }
    }
}

fn is_of_ranges(backing: Backing) -> bool {
    !matches!(backing, Backing::Memfd | Backing::Written)
}

fn descriptor(pid: u32, fd: i64) -> String {
    format!("/proc/{pid}/fd/{fd}")
}

/// Whether a descriptor is a memfd now: it may have been closed and given to another file.
pub fn is_memfd(pid: u32, fd: i64) -> bool {
    let name = std::fs::read_link(descriptor(pid, fd));
    name.is_ok_and(|name| name.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}

/// What the memfds that a process made since the attach hold, mapped or not.
pub fn memfds(pid: u32, process: &Process) -> Vec<Holding> {
    let held = process.memfds.iter().filter(|(fd, _)| is_memfd(pid, **fd));
    let held = held.filter_map(|(fd, (stack, time_ns))| {
        let bytes = std::fs::metadata(descriptor(pid, *fd)).ok()?.blocks() * 512;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of which only one page may be read.
    struct Guarded(u64);

    impl ReadMemory for Guarded {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            assert_eq!(address, self.0, "memory that is not resident was read");
            out.fill(0);
            out[8..16].copy_from_slice(&(CHUNK_LEAST | 2).to_le_bytes());
            out.len()
        }
    }

    fn owner(stack: StackId) -> Owner {
        let backing = Backing::Anonymous;
        Owner { stack, id: 1, time_ns: 0, backing, inherited: false, head: None }
    }

    #[test]
    fn what_was_mapped_just_before_the_end_is_held() {
        let mut process = Process::default();
        process.ranges.insert(0..300 << 12, owner(1));
        process.ranges.insert(1 << 30..(1 << 30) + (50 << 12), owner(2));
        let holding = |stack, backing, resident| Holding {
            pid: 7,
            stack,
            backing,
            resident,
            mapped: 100 << 12,
            count: 10,
            first_ns: 0,
            last_ns: 0,
        };
        let half = 50 << 12;
        let mut held = [
            holding(1, Backing::Anonymous, half),
            holding(1, Backing::Memfd, half),
            holding(2, Backing::Anonymous, half),
        ];
        let (memfd, shrunk) = (held[1], held[2]);
        extend(&mut held, &process);
        let grown =
            Holding { mapped: 300 << 12, count: 30, ..holding(1, Backing::Anonymous, 3 * half) };
        assert_eq!(held, [grown, memfd, shrunk]);
    }

    #[test]
    fn a_reservation_is_not_touched_by_looking_at_it() {
        let pieces = [1u64, 2, 3].map(|n| (n << 30..(n << 30) + CHUNK_LEAST, owner(1)));
        let runs = [(2u64 << 30..(2 << 30) + 8192), ((3 << 30) + 4096..(3 << 30) + 8192)]
            .map(|range| Run { range, huge: false, file: false });
        let mut found = [Found::default(); 3];
        overlap(&runs, &pieces, &mut found);
        let of = |bytes, head| Found { bytes, own: bytes, head };
        assert_eq!(found, [of(0, false), of(8192, true), of(4096, false)]);
        let chunks = chunks(&pieces, &found, &Guarded(2 << 30));
        assert_eq!(chunks.iter().map(|(r, ())| r.start).collect::<Vec<_>>(), [2 << 30]);
    }
}
