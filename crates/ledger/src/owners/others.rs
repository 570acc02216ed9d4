//! Allocators other than glibc's, and runtimes whose heaps are not read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use plumb_target::{Image, Memory, Range, Residency, jemalloc, mimalloc, musl, tcmalloc};

use super::stacks::{is_static, writable};
use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// An allocator whose ranges can be listed.
struct Allocator {
    name: &'static str,
    /// How its library's name begins.
    library: &'static str,
    /// What it says when something is wrong, or of its state: it stands in stripped files too.
    mark: &'static [u8],
    /// What its own records are called.
    records: &'static str,
    find: fn(&Scene, &Memory, &Image) -> Found,
}

/// What an allocator owns.
#[derive(Default)]
struct Found {
    heap: Vec<Range>,
    records: Vec<Range>,
    /// Bytes of each range of `heap` that are live, where that can be read with certainty.
    in_use: Option<Vec<u64>>,
}

const ALLOCATORS: [Allocator; 3] = [
    Allocator {
        name: "jemalloc",
        library: "libjemalloc",
        mark: b"<jemalloc>: ",
        records: "jemalloc, its radix tree",
        find: |scene, memory, image| {
            let Some(pagemap) = &scene.reading.pagemap else { return Found::default() };
            let found = jemalloc::find(memory, pagemap, &writable(image), &scene.maps);
            Found { heap: found.extents, records: found.leaves, in_use: None }
        },
    },
    Allocator {
        name: "mimalloc",
        library: "libmimalloc",
        mark: b"mimalloc: error: ",
        records: "",
        find: |scene, memory, image| {
            let found = mimalloc::find(memory, &writable(image), &scene.maps);
            let in_use = split(scene, |pages, until| found.in_use(memory, pages, until));
            Found { heap: found.ranges, records: Vec::new(), in_use }
        },
    },
    Allocator {
        name: "tcmalloc",
        library: "libtcmalloc",
        mark: b"Bytes in use by application",
        records: "tcmalloc, its records",
        find: |scene, memory, image| {
            let Some(pagemap) = &scene.reading.pagemap else { return Found::default() };
            let found = tcmalloc::find(memory, pagemap, &writable(image), &scene.maps);
            Found { heap: found.spans, records: found.records, in_use: None }
        },
    },
];

impl Allocator {
    fn claim(
        &self,
        scene: &Scene,
        memory: &Memory,
        image: &Image,
        claims: &mut Claims,
        notes: &mut Vec<String>,
    ) {
        (self.find)(scene, memory, image).claim(self.name, self.records, claims, notes);
    }
}

impl Found {
    fn claim(self, name: &str, records: &str, claims: &mut Claims, notes: &mut Vec<String>) {
        match self.in_use {
            Some(in_use) => {
                for (range, live) in self.heap.into_iter().zip(in_use) {
                    let claim = Claim::new(range, Layer::HeapRetained, name);
                    claims.add(claim.carving(Layer::HeapInUse, live));
                }
                add(claims, self.records, Layer::HeapRetained, records);
            }
            None => {
                note_unsplit(&self.heap, name, notes);
                add(claims, self.heap, Layer::Heap, name);
                add(claims, self.records, Layer::Heap, records);
            }
        }
    }
}

/// What a walk finds to be live, where heaps are to be walked.
fn split(
    scene: &Scene,
    walk: impl FnOnce(&Residency, Instant) -> Option<Vec<u64>>,
) -> Option<Vec<u64>> {
    let until = Instant::now() + scene.depth.budget;
    scene.depth.heap.then(|| walk(scene.reading.pages(), until)).flatten()
}

/// Claims what these and musl own where the image says by its name that it is theirs.
pub(super) fn claim(scene: &Scene, memory: &Memory, claims: &mut Claims, notes: &mut Vec<String>) {
    for image in &scene.images {
        let name = image.name();
        for allocator in ALLOCATORS.iter().filter(|a| name.starts_with(a.library)) {
            allocator.claim(scene, memory, image, claims, notes);
        }
        if name.starts_with("ld-musl") || name == "libc.so" || is_static(image) {
            let heap = musl::find(memory, &writable(image), &scene.maps);
            let in_use = split(scene, |pages, until| heap.in_use(memory, pages, until));
            let found = Found { heap: heap.groups, records: heap.records, in_use };
            found.claim("musl's malloc", "musl's malloc, its records", claims, notes);
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
        for (allocator, is_linked) in ALLOCATORS.iter().zip(linked(image)) {
            if is_linked {
                allocator.claim(scene, memory, image, claims, notes);
            }
        }
    }
}

/// Which of [`ALLOCATORS`] an image has linked in. A file can be large, so what was found is kept, by
/// build id.
fn linked(image: &Image) -> [bool; ALLOCATORS.len()] {
    static KNOWN: Mutex<BTreeMap<Vec<u8>, [bool; ALLOCATORS.len()]>> = Mutex::new(BTreeMap::new());
    const MOST_KNOWN: usize = 4096;
    let look = || {
        let found = image.mentions(&ALLOCATORS.each_ref().map(|a| a.mark));
        std::array::from_fn(|i| found[i])
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
    if !ranges.is_empty() {
        let why = "what is live in it cannot be seen from outside";
        note_once(format!("the heap of {name} is not split: {why}"), notes);
    }
}

fn note_once(note: String, notes: &mut Vec<String>) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

fn add(claims: &mut Claims, ranges: Vec<Range>, layer: Layer, name: &str) {
    let mut runs: Vec<Range> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => runs.push(range),
        }
    }
    for run in runs {
        claims.add(Claim::new(run, layer, name));
    }
}

/// Says of which runtimes the heap is part of `anonymous`.
pub(super) fn note_runtimes(scene: &Scene, notes: &mut Vec<String>) {
    for image in &scene.images {
        let name = image.name();
        let runtime = match name.as_str() {
            "libjvm.so" => "the JVM",
            "node" | "nodejs" | "deno" | "chrome" | "chromium" | "electron" => "V8",
            "bun" => "JavaScriptCore",
            "sbcl" => "SBCL",
            "beam.smp" => "Erlang",
            _ if name.starts_with("libnode.so") || name.starts_with("libv8") => "V8",
            _ if name.starts_with("libcoreclr") => ".NET",
            _ if name.starts_with("libmono") || name.starts_with("mono-sgen") => "Mono",
            _ if name.starts_with("libjulia") => "Julia",
            _ if name.starts_with("libruby") => "Ruby",
            _ if name.starts_with("libguile") => "Guile",
            _ if name.starts_with("php") || name.starts_with("libphp") => "PHP",
            _ if image.elf.is_go => "Go",
            _ => continue,
        };
        note_once(format!("the heap of {runtime} is not read: it is part of anonymous"), notes);
    }
}
