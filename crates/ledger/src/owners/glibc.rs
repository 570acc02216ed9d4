//! Heaps of glibc's malloc.

use std::time::Instant;

use plumb_target::glibc::{Glibc, Segment, mapped_chunks};
use plumb_target::{Image, Map, Memory, PAGE, Range, ReadMemory};

use super::stacks::{is_static, writable};
use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::classify::Kinds;
use crate::sample::Scene;

/// Claims the heaps of every malloc of glibc in the process; whether there is one in use.
pub(super) fn claim(
    scene: &Scene,
    memory: &Memory,
    kinds: &mut Kinds,
    claims: &mut Claims,
    notes: &mut Vec<String>,
) -> bool {
    let until = Instant::now() + scene.depth.budget;
    let mut any = false;
    for image in scene.images.iter().filter(|image| holds_malloc(image)) {
        let Some(mut malloc) = Glibc::find(memory, &writable(image), &scene.maps) else {
            if !is_static(image) && begins_with_no_chunk(scene, memory) {
                kinds.set_brk(Layer::Anonymous);
            }
            continue;
        };
        any = true;
        kinds.set_brk(Layer::Anonymous);
        if malloc.is_spread() {
            malloc.add_spread(memory, &free(scene, claims), scene.reading.pages(), until);
        }
        claim_segments(scene, memory, &malloc, claims, notes, until);
        claim_mapped(scene, memory, &malloc, claims, notes, until);
    }
    any
}

/// Whether what `brk` gave begins with none of malloc's chunks, though malloc's first would stand there:
/// a program that only calls `sbrk` itself has a malloc that was never used.
fn begins_with_no_chunk(scene: &Scene, memory: &Memory) -> bool {
    const LEAST_CHUNK: u64 = 32;
    let Some(heap) = scene.maps.iter().find(|map| map.name == "[heap]") else { return false };
    let Some(words) = memory.words_at(heap.start, 2) else { return false };
    let size = words[1] & !7;
    !(LEAST_CHUNK..=heap.end - heap.start).contains(&size)
}

fn holds_malloc(image: &Image) -> bool {
    let name = image.name();
    name.starts_with("libc.so") || name.starts_with("libc-2.") || is_static(image)
}

fn claim_segments(
    scene: &Scene,
    memory: &Memory,
    malloc: &Glibc,
    claims: &mut Claims,
    notes: &mut Vec<String>,
    until: Instant,
) {
    if !scene.depth.heap {
        for segment in malloc.segments() {
            claims.add(Claim::new(pages(&segment.range), Layer::Heap, name(segment, malloc)));
        }
        return;
    }
    let mut torn_ones: Vec<String> = Vec::new();
    for (segment, tally) in malloc.tally(memory, scene.reading.pages(), until) {
        let (range, name) = (pages(&segment.range), name(&segment, malloc));
        match tally {
            Ok(tally) => {
                for foreign in tally.foreign {
                    claims.add(Claim::new(foreign, Layer::Anonymous, "brk, not malloc's"));
                }
                let claim = Claim::new(range, Layer::HeapRetained, name);
                claims.add(claim.carving(Layer::HeapInUse, tally.in_use));
            }
            Err(torn) => {
                torn_ones.push(format!("{name} at {:#x} is not split: {torn}", range.start));
                claims.add(Claim::new(range, Layer::Heap, name));
            }
        }
    }
    let more = torn_ones.len().saturating_sub(1);
    notes.extend(torn_ones.into_iter().next().map(|first| match more {
        0 => first,
        more => format!("{first}; likewise {more} more pieces of heaps"),
    }));
}

/// Mapped chunks are accepted up to what malloc itself counts: a surplus looks like them, and is
/// what a `munmap` that was put off leaves behind.
fn claim_mapped(
    scene: &Scene,
    memory: &Memory,
    malloc: &Glibc,
    claims: &mut Claims,
    notes: &mut Vec<String>,
    until: Instant,
) {
    let Some(params) = &malloc.params else {
        notes.push("malloc's counters were not found: its mapped chunks are anonymous here".into());
        return;
    };
    if params.mapped_bytes == 0 {
        return;
    }
    let free = free(scene, claims);
    let resident = scene.reading.pages();
    let scanned = scene.depth.heap.then_some(resident);
    let found = mapped_chunks(memory, &free, params.mapped_bytes, scanned, until);
    let layer = if scene.depth.heap { Layer::HeapInUse } else { Layer::Heap };
    let surplus = found.bytes > params.mapped_bytes;
    for run in merge(found.chunks) {
        let claim = if surplus {
            let share = u128::from(resident.bytes_in(&run)) * u128::from(params.mapped_bytes);
            let live = (share / u128::from(found.bytes)) as u64;
            let name = "malloc, mapped chunks and freed ones that are still mapped";
            Claim::new(run, Layer::Anonymous, name).carving(layer, live)
        } else {
            Claim::new(run, layer, "malloc, mapped chunks")
        };
        claims.add(claim);
    }
}

/// Private memory without a name that nobody has claimed. `madvise` on a part cuts a mapping, not a
/// chunk: what touches is one range.
pub(super) fn free(scene: &Scene, claims: &Claims) -> Vec<Range> {
    let plain = |map: &&Map| map.is_anonymous() && map.permissions.write && map.name.is_empty();
    let maps = merge(scene.maps.iter().filter(plain).map(Map::range).collect());
    maps.iter().flat_map(|range| claims.free_in(range)).collect()
}

/// Ranges that touch are one.
fn merge(chunks: Vec<Range>) -> Vec<Range> {
    let mut runs: Vec<Range> = Vec::new();
    for chunk in chunks {
        match runs.last_mut() {
            Some(last) if last.end == chunk.start => last.end = chunk.end,
            _ => runs.push(chunk),
        }
    }
    runs
}

fn pages(range: &Range) -> Range {
    range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE)
}

fn name(segment: &Segment, malloc: &Glibc) -> String {
    // Its end may have moved since.
    let is_it = |own: &Segment| own.first_chunk == segment.first_chunk;
    let main = malloc.arenas.first().is_some_and(|arena| arena.segments.iter().any(is_it));
    if main { "malloc, main arena" } else { "malloc, arena of threads" }.to_owned()
}
