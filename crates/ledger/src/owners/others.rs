//! Allocators whose ranges can be listed but not split, and runtimes whose heaps are not read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use plumb_target::{Image, Memory, Range, jemalloc, mimalloc, musl};

use super::stacks::{is_static, writable};
use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// Claims what jemalloc, mimalloc and musl own, as `heap`.
pub(super) fn claim(scene: &Scene, memory: &Memory, claims: &mut Claims) {
    let Some(pagemap) = &scene.reading.pagemap else { return };
    for image in &scene.images {
        let name = image.name();
        let data = || writable(image);
        let (jemalloc_linked, mimalloc_linked) = linked(image);
        if name.starts_with("libjemalloc") || jemalloc_linked {
            let found = jemalloc::find(memory, pagemap, &data(), &scene.maps);
            add(claims, found.extents, "jemalloc");
            add(claims, found.leaves, "jemalloc, its radix tree");
        }
        if name.starts_with("libmimalloc") || mimalloc_linked {
            add(claims, mimalloc::find(memory, &data(), &scene.maps), "mimalloc");
        }
        if name.starts_with("ld-musl") || name == "libc.so" || is_static(image) {
            add(claims, musl::find(memory, &data(), &scene.maps), "musl's malloc");
        }
    }
}

/// Names by which an allocator that is linked into an executable is known.
const LINKED: [&str; 4] = ["mallctl", "_rjem_mallctl", "je_mallctl", "mi_malloc"];

/// Which allocators an executable has linked in: jemalloc, mimalloc. Seen only where the symbols are
/// still there. A symbol table can be large, so what it said is kept, by build id.
fn linked(image: &Image) -> (bool, bool) {
    static KNOWN: Mutex<BTreeMap<Vec<u8>, (bool, bool)>> = Mutex::new(BTreeMap::new());
    const MOST_KNOWN: usize = 4096;
    let Some(build_id) = image.elf.build_id.clone() else { return (false, false) };
    if !image.elf.has_interpreter || image.elf.soname.is_some() {
        return (false, false);
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() > MOST_KNOWN {
        known.clear();
    }
    *known.entry(build_id).or_insert_with(|| {
        let found = image.mentions(&LINKED);
        (found[..3].contains(&true), found[3])
    })
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
            _ if name.starts_with("libtcmalloc") => {
                notes
                    .push("tcmalloc: what it took by brk is heap, what it mapped anonymous".into());
                continue;
            }
            _ => continue,
        };
        let note = format!("the heap of {runtime} is not read: it is part of anonymous");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}
