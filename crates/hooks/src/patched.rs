//! Functions whose text in memory differs from its file.

use std::collections::{BTreeMap, BTreeSet};

use plumb_target::image::{Dynamic, FileView};
use plumb_target::symbols::SymbolTable;
use plumb_target::text_diff::{self, Difference};
use plumb_target::{Error, Image, Range, ReadMemory, maps};

use crate::jump::{self, Step};
use crate::names;
use crate::report::{Patched, Tracer, TracerKind, Unread};
use crate::scan::Scene;

/// What the text of all images told.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub patched: Vec<Patched>,
    pub breakpoints: Vec<Tracer>,
    pub differing: Vec<(String, Range)>,
}

/// A change further than this into a function is shown without it.
const MAX_INTO: u64 = 64 << 10;
const BREAKPOINT: u8 = 0xcc;

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
        text.patched.extend(patches_of(scene, image, &patches));
    }
    Ok(text)
}

/// Programs that move their text to huge pages leave anonymous memory in its place.
fn is_of(image: &Image, scene: &Scene, address: u64) -> bool {
    maps::find(&scene.maps, address).is_some_and(|map| map.path() == Some(&*image.path))
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
fn changes(difference: &Difference) -> impl Iterator<Item = u64> {
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
    if scene.memory.read_exact(difference.address, &mut code).is_none() {
        return false;
    }
    let step = jump::decode(&scene.memory, difference.address, &code);
    let map = step.and_then(|step| maps::find(&scene.maps, step.target));
    map.is_some_and(|map| map.name.to_string_lossy().starts_with("[uprobes"))
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

/// One row a function: differences are cut where functions begin and joined within one.
fn patches_of(scene: &Scene, image: &Image, found: &[Difference]) -> Vec<Patched> {
    let symbols = scene.symbols(image);
    let mut functions: BTreeMap<u64, (bool, Range)> = BTreeMap::new();
    for address in found.iter().flat_map(changes) {
        let into = symbols.at(address.wrapping_sub(image.bias)).map(|(_, into)| into);
        let named = into.filter(|&into| into < MAX_INTO);
        let last = functions.last_key_value().map(|(_, (_, range))| range.end);
        // Without a symbol, what lies close together is one patch.
        let near = last.filter(|&end| named.is_none() && address - end < 16);
        let start = match (named, near) {
            (Some(into), _) => address - into,
            (None, Some(_)) => functions.last_key_value().map_or(address, |(&start, _)| start),
            (None, None) => address,
        };
        let range = functions.entry(start).or_insert((named.is_some(), address..address));
        range.1.end = address + 1;
    }
    let row = |(start, (named, changed))| patch(scene, image, &symbols, start, named, &changed);
    functions.into_iter().filter_map(row).collect()
}

fn patch(
    scene: &Scene,
    image: &Image,
    symbols: &SymbolTable,
    start: u64,
    named: bool,
    changed: &Range,
) -> Option<Patched> {
    let step = entry(scene, start, changed.start);
    let jump_end = step.map_or(0, |(from, step)| from + step.length as u64);
    let end = changed.end.max(jump_end);
    let both = |end: u64| text_diff::both(&scene.memory, image, start, (end - start) as usize);
    let (file_bytes, memory_bytes) = both(end).or_else(|| both(changed.end))?;
    let home = start..end + 64;
    let target = step.map(|(_, step)| inside(scene, image, step.target, changed, &home));
    let (symbol, aliases) = named
        .then(|| names::public(symbols.starting_at(start.wrapping_sub(image.bias))))
        .flatten()
        .map_or((None, Vec::new()), |(symbol, aliases)| (Some(symbol), aliases));
    Some(Patched {
        symbol,
        aliases,
        module: image.path.to_string_lossy().into_owned(),
        address: start,
        target_symbol: target.and_then(|at| symbol_at(scene, at)),
        owner: target.and_then(|at| scene.owner(at)),
        file_bytes,
        memory_bytes,
    })
}

/// The jump that a changed function begins with, or that the change itself begins with, and where
/// that is.
fn entry(scene: &Scene, start: u64, changed: u64) -> Option<(u64, Step)> {
    [start, changed].into_iter().find_map(|from| {
        let mut code = [0; jump::LONGEST];
        let got = scene.memory.read_at(from, &mut code);
        let step = jump::decode(&scene.memory, from, &code[..got])?;
        // A jump that ends before the change was there already.
        (from + step.length as u64 > changed).then_some((from, step))
    })
}

/// Where a jump ends up: a short one may first go to a longer one beside the function.
fn inside(scene: &Scene, image: &Image, target: u64, changed: &Range, home: &Range) -> u64 {
    let beside = changed.start.saturating_sub(128)..changed.end + 128;
    let mut at = target;
    if image.range.contains(&at) && beside.contains(&at) {
        let mut code = [0; jump::LONGEST];
        let got = scene.memory.read_at(at, &mut code);
        at = jump::decode(&scene.memory, at, &code[..got]).map_or(at, |step| step.target);
    }
    scene.through(at, home)
}

fn symbol_at(scene: &Scene, address: u64) -> Option<String> {
    let image = plumb_target::image::find(scene.images, address)?;
    let symbols = scene.symbols(image);
    let (symbol, _) = symbols.at(address.wrapping_sub(image.bias))?;
    let all = symbols.starting_at(symbol.address);
    names::public(all).map(|(name, _)| name)
}
