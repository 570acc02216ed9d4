//! Allocators whose ranges can be listed but not split, and runtimes whose heaps are not read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use plumb_target::{Image, Memory, Range, jemalloc, mimalloc, musl, tcmalloc};

use super::stacks::{is_static, writable};
use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// Claims what jemalloc, mimalloc, tcmalloc and musl own where the image says by its name that it is theirs.
pub(super) fn claim(scene: &Scene, memory: &Memory, claims: &mut Claims, notes: &mut Vec<String>) {
    for image in &scene.images {
        let name = image.name();
        if name.starts_with("libjemalloc") {
            claim_jemalloc(scene, memory, image, claims, notes);
        }
        if name.starts_with("libmimalloc") {
            claim_mimalloc(scene, memory, image, claims, notes);
        }
        if name.starts_with("libtcmalloc") {
            claim_tcmalloc(scene, memory, image, claims, notes);
        }
        if name.starts_with("ld-musl") || name == "libc.so" || is_static(image) {
            let found = musl::find(memory, &writable(image), &scene.maps);
            note_unsplit(&found, "musl's malloc", notes);
            add(claims, found, "musl's malloc");
        }
    }
}

/// Less than this of private memory without an owner is not worth a search through all files.
const WORTH_A_SEARCH: u64 = 4 << 20;

/// Claims likewise for allocators that are linked into executables and libraries, where much memory
/// has found no other owner.
pub(super) fn claim_linked(
    scene: &Scene,
    memory: &Memory,
    claims: &mut Claims,
    notes: &mut Vec<String>,
) {
    let pages = scene.reading.pages();
    let free = super::glibc::free(scene, claims);
    if free.iter().map(|range| pages.bytes_in(range)).sum::<u64>() < WORTH_A_SEARCH {
        return;
    }
    for image in &scene.images {
        let [jemalloc, mimalloc, tcmalloc] = linked(image);
        if jemalloc {
            claim_jemalloc(scene, memory, image, claims, notes);
        }
        if mimalloc {
            claim_mimalloc(scene, memory, image, claims, notes);
        }
        if tcmalloc {
            claim_tcmalloc(scene, memory, image, claims, notes);
        }
    }
}

fn claim_jemalloc(
    scene: &Scene,
    memory: &Memory,
    image: &Image,
    claims: &mut Claims,
    notes: &mut Vec<String>,
) {
    let Some(pagemap) = &scene.reading.pagemap else { return };
    let found = jemalloc::find(memory, pagemap, &writable(image), &scene.maps);
    note_unsplit(&found.extents, "jemalloc", notes);
    add(claims, found.extents, "jemalloc");
    add(claims, found.leaves, "jemalloc, its radix tree");
}

fn claim_mimalloc(
    scene: &Scene,
    memory: &Memory,
    image: &Image,
    claims: &mut Claims,
    notes: &mut Vec<String>,
) {
    let found = mimalloc::find(memory, &writable(image), &scene.maps);
    note_unsplit(&found, "mimalloc", notes);
    add(claims, found, "mimalloc");
}

fn claim_tcmalloc(
    scene: &Scene,
    memory: &Memory,
    image: &Image,
    claims: &mut Claims,
    notes: &mut Vec<String>,
) {
    let Some(pagemap) = &scene.reading.pagemap else { return };
    let found = tcmalloc::find(memory, pagemap, &writable(image), &scene.maps);
    note_unsplit(&found.spans, "tcmalloc", notes);
    add(claims, found.spans, "tcmalloc");
    add(claims, found.records, "tcmalloc, its records");
}

/// What allocators say when something is wrong, or of their state: it stands in stripped files too.
const MARKS: [&[u8]; 3] = [b"<jemalloc>: ", b"mimalloc: error: ", b"Bytes in use by application"];

/// Which allocators an image has linked in: jemalloc, mimalloc, tcmalloc. A file can be large, so what was found
/// is kept, by build id.
fn linked(image: &Image) -> [bool; 3] {
    static KNOWN: Mutex<BTreeMap<Vec<u8>, [bool; 3]>> = Mutex::new(BTreeMap::new());
    const MOST_KNOWN: usize = 4096;
    let look = || {
        let found = image.mentions(&MARKS);
        [found[0], found[1], found[2]]
    };
    let Some(build_id) = image.elf.build_id.clone() else { return look() };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() > MOST_KNOWN {
        known.clear();
    }
    *known.entry(build_id).or_insert_with(look)
}

/// Says why a heap is in one piece.
fn note_unsplit(ranges: &[Range], name: &str, notes: &mut Vec<String>) {
    let note =
        format!("the heap of {name} is not split: what is live in it cannot be seen from outside");
    if !ranges.is_empty() && !notes.contains(&note) {
        notes.push(note);
    }
}

fn add(claims: &mut Claims, ranges: Vec<Range>, name: &str) {
    let mut runs: Vec<Range> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => runs.push(range),
        }
    }
    for run in runs {
        claims.add(Claim::new(run, Layer::Heap, name));
    }
}

/// Says of which runtimes the heap is part of `anonymous`.
pub(super) fn note_runtimes(scene: &Scene, notes: &mut Vec<String>) {
    for image in &scene.images {
        let name = image.name();
        let runtime = match name.as_str() {
            "libjvm.so" => "the JVM",
            "node" | "nodejs" => "V8",
            _ if name.starts_with("libnode.so") || name.starts_with("libv8") => "V8",
            _ if name.starts_with("libcoreclr") => ".NET",
            _ if name.starts_with("libruby") => "Ruby",
            _ if image.elf.is_go => "Go",
            _ => continue,
        };
        let note = format!("the heap of {runtime} is not read: it is part of anonymous");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}
