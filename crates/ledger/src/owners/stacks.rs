//! Stacks of threads.

use std::collections::HashMap;

use plumb_target::{Image, Map, Range, glibc, threads};

use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// Claims the stacks of all threads, those kept for the next thread included: by the C library's
/// own lists where it has some, then by control blocks at the ends of mappings.
pub(super) fn claim(scene: &Scene, claims: &mut Claims) {
    let Some(memory) = &scene.memory else { return };
    let threads = threads::threads(&scene.process).unwrap_or_default();
    if threads.len() <= 1 && !has_cached_stacks(scene) {
        return;
    }
    let pointers: Vec<u64> = threads.iter().skip(1).filter_map(|t| t.stack_pointer).collect();
    let names: HashMap<u64, &str> =
        threads.iter().filter_map(|t| Some((t.stack_pointer?, t.name.as_str()))).collect();
    let data = lists_data(scene);
    let listed = glibc::stack_blocks(memory, &data, &scene.maps);
    for block in listed {
        add(claims, &block.range, &names);
    }
    for block in glibc::stacks_of_threads(memory, &scene.maps, &pointers) {
        add(claims, &block.range, &names);
    }
}

fn add(claims: &mut Claims, range: &Range, names: &HashMap<u64, &str>) {
    let name = names.iter().find(|(pointer, _)| range.contains(pointer)).map(|(_, name)| *name);
    let name = name.map_or_else(|| "stack".to_owned(), |name| format!("stack of {name}"));
    claims.add(Claim::new(range.clone(), Layer::Stacks, name));
}

/// A process with one thread has other stacks only where threads have ended: then a guard is left.
fn has_cached_stacks(scene: &Scene) -> bool {
    scene.maps.windows(2).any(|pair| {
        let (guard, stack) = (&pair[0], &pair[1]);
        let none = |map: &Map| !map.permissions.read && !map.permissions.write;
        guard.is_anonymous() && none(guard) && stack.is_anonymous() && stack.permissions.write
    })
}

/// The writable data in which the C library's lists of stacks stand.
fn lists_data(scene: &Scene) -> Vec<Range> {
    let keeps_lists = |image: &&Image| {
        let name = image.name();
        name.starts_with("ld-linux")
            || name.starts_with("ld-2.")
            || name.starts_with("libpthread")
            || is_static(image)
    };
    scene.images.iter().filter(keeps_lists).flat_map(writable).collect()
}

/// Whether an image is an executable without a dynamic linker.
pub(super) fn is_static(image: &Image) -> bool {
    !image.elf.has_interpreter && image.elf.soname.is_none() && !image.name().starts_with("ld")
}

/// The writable segments of an image.
pub(super) fn writable(image: &Image) -> Vec<Range> {
    image.segments().filter(|segment| segment.write).map(|segment| segment.range).collect()
}
