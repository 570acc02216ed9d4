//! Functions whose text in memory differs from its file.

use std::collections::BTreeSet;

use plumb_target::image::{Dynamic, FileView};
use plumb_target::text_diff::{self, Difference};
use plumb_target::{Error, Image, PAGE, Range, ReadMemory, maps};

use crate::report::{Patched, Tracer, TracerKind, Unread};
use crate::scan::Scene;
use crate::{names, rows};

/// What the text of all images told.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub patched: Vec<Patched>,
    pub breakpoints: Vec<Tracer>,
    pub differing: Vec<(String, Range)>,
}

const BREAKPOINT: u8 = 0xcc;
const CALL: u8 = 0xe8;

/// Compares every image. One that cannot be opened is added to `unread`.
pub(crate) fn find(scene: &Scene, unread: &mut Vec<Unread>) -> Result<Text, Error> {
    let mut text = Text::default();
    let mut changed = Vec::new();
    for image in scene.images {
        match text_diff::differences(scene.process, &scene.memory, image) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => changed.push((image, found)),
            Err(error @ (Error::Vanished { .. } | Error::Denied { .. })) => return Err(error),
            Err(error) => unread.push(Unread {
                module: image.path.to_string_lossy().into_owned(),
                reason: error.to_string(),
            }),
        }
    }
    for (image, mut found) in changed {
        found.retain(|d| is_of(image, scene, d.address));
        leave_out_relocations(image, &mut found);
        let module = image.path.to_string_lossy();
        text.differing.extend(found.iter().map(|d| (module.clone().into_owned(), d.range())));
        let (traps, patches): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|d| is_breakpoint(scene, d));
        text.breakpoints.extend(traps.iter().flat_map(|d| breakpoints(scene, image, d)));
        text.patched.extend(rows::of(scene, image, &patches));
    }
    Ok(text)
}

/// Whether what lies there is the image's text: its file is mapped, or a copy that was put in its
/// place (to change it, or to have it in huge pages). Where most bytes differ, other code lies there.
fn is_of(image: &Image, scene: &Scene, address: u64) -> bool {
    let Some(map) = maps::find(&scene.maps, address) else { return false };
    if map.path() == Some(&*image.path) {
        return true;
    }
    let page = address / PAGE * PAGE;
    let both = text_diff::both(&scene.memory, image, page, PAGE as usize);
    let differing = |(file, memory): (Vec<u8>, Vec<u8>)| {
        file.iter().zip(&memory).filter(|(file, memory)| file != memory).count()
    };
    map.permissions.execute && both.is_some_and(|both| differing(both) < PAGE as usize / 4)
}

/// Text relocations (`DT_TEXTREL`) are written by the dynamic linker, up to eight bytes each.
fn leave_out_relocations(image: &Image, found: &mut Vec<Difference>) {
    if !image.elf.text_relocations {
        return;
    }
    let Ok(file) = image.open() else { return };
    let view = FileView::new(&file, &image.elf);
    let mut relocated = BTreeSet::new();
    Dynamic::read(&view, &image.elf).relocations(&view, |r| {
        relocated.insert(image.bias.wrapping_add(r.address));
    });
    found.retain(|difference| {
        changes(difference).any(|at| relocated.range(at.saturating_sub(7)..=at).next().is_none())
    });
}

/// The addresses at which the bytes differ; those between are the same.
pub(crate) fn changes(difference: &Difference) -> impl Iterator<Item = u64> {
    let pairs = difference.file.iter().zip(&difference.memory).enumerate();
    pairs.filter(|(_, (file, memory))| file != memory).map(|(at, _)| difference.address + at as u64)
}

/// Single bytes replaced by `int3`, or (kernels since 6.18) a call into the kernel's own uprobe
/// trampoline.
fn is_breakpoint(scene: &Scene, difference: &Difference) -> bool {
    let at: Vec<u64> = changes(difference).collect();
    let apart = at.windows(2).all(|pair| pair[1] - pair[0] > 1);
    let all = at
        .iter()
        .all(|a| difference.memory.get((a - difference.address) as usize) == Some(&BREAKPOINT));
    apart && all || leads_to_uprobes(scene, difference)
}

fn leads_to_uprobes(scene: &Scene, difference: &Difference) -> bool {
    let mut code = [0; 5];
    if scene.memory.read_exact(difference.address, &mut code).is_none() || code[0] != CALL {
        return false;
    }
    let by = i32::from_le_bytes([code[1], code[2], code[3], code[4]]);
    let target = difference.address.wrapping_add(5).wrapping_add_signed(by.into());
    maps::find(&scene.maps, target)
        .is_some_and(|map| map.name.to_string_lossy().starts_with("[uprobes"))
}

fn breakpoints(scene: &Scene, image: &Image, difference: &Difference) -> Vec<Tracer> {
    let symbols = scene.symbols(image);
    let one = |address: u64| {
        let symbol = symbols.at(address.wrapping_sub(image.bias)).map(|(symbol, _)| {
            let all = symbols.starting_at(symbol.address);
            names::public(all).map_or_else(|| names::shown(&symbol.name), |(name, _)| name)
        });
        Tracer {
            symbol,
            module: Some(image.path.to_string_lossy().into_owned()),
            address: Some(address),
            ..Tracer::of(TracerKind::Breakpoint)
        }
    };
    if difference.memory.contains(&BREAKPOINT) {
        changes(difference).map(one).collect()
    } else {
        vec![Tracer { kind: TracerKind::Uprobe, ..one(difference.address) }]
    }
}
