//! From bytes that differ to functions that were patched.

use std::collections::BTreeMap;

use plumb_target::image::{self, Dynamic, FileView};
use plumb_target::symbols::SymbolTable;
use plumb_target::text_diff::{self, Difference};
use plumb_target::{Image, Range, ReadMemory, memory};

use crate::follow::{self, Walk};
use crate::names;
use crate::patched::changes;
use crate::report::Patched;
use crate::scan::Scene;

/// A change further than this into a function is shown without it.
const MAX_INTO: u64 = 64 << 10;
/// A change this close behind another is part of it, where no function begins between.
const NEAR: u64 = 16;

/// A function that was changed, or, where none is known, the place alone.
struct Function {
    start: u64,
    end: u64,
    is_known: bool,
    changed: Range,
}

/// One row a function: differences are cut where functions begin and joined within one.
pub(crate) fn of(scene: &Scene, image: &Image, found: &[Difference]) -> Vec<Patched> {
    let symbols = scene.symbols(image);
    let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
    for at in found.iter().flat_map(changes) {
        let home = home(image, &symbols, at);
        let near = functions.last_entry().filter(|last| at - last.get().changed.end < NEAR);
        match (home, near) {
            // Padding behind a function that a long jump spills into.
            (None, Some(mut last)) => last.get_mut().changed.end = at + 1,
            (home, _) => {
                let is_known = home.is_some();
                let home = home.unwrap_or(at..at + 1);
                let new =
                    Function { start: home.start, end: home.end, is_known, changed: at..at + 1 };
                functions.entry(home.start).or_insert(new).changed.end = at + 1;
            }
        }
    }
    let patches: Vec<Range> = functions.values().map(|f| f.changed.clone()).collect();
    let walked: Vec<(&Function, Walk)> =
        functions.values().map(|f| (f, walk(scene, image, f, &patches))).collect();
    let between: Vec<u64> = walked.iter().flat_map(|(_, walk)| walk.between.clone()).collect();
    // Padding and caves that a patch jumps to on its way are part of that patch.
    let is_part = |f: &Function| !f.is_known && between.iter().any(|at| f.changed.contains(at));
    let rows = walked.iter().filter(|(function, _)| !is_part(function));
    rows.filter_map(|(function, walk)| row(scene, image, &symbols, function, walk)).collect()
}

/// The function that holds an address of the process, by its symbol or else by the unwinder's index.
fn home(image: &Image, symbols: &SymbolTable, at: u64) -> Option<Range> {
    let by_symbol = symbols.at(at.wrapping_sub(image.bias)).map(|(symbol, into)| {
        let start = at - into;
        start..start + symbol.size.max(into + 1)
    });
    let known = by_symbol.or_else(|| image.function(at));
    known.filter(|home| at - home.start < MAX_INTO)
}

fn walk(scene: &Scene, image: &Image, function: &Function, patches: &[Range]) -> Walk {
    let home = function.start..function.end.max(function.changed.end);
    follow::patch(&scene.memory, function.start, &function.changed, |at| {
        scene.place(at, image, &home, patches)
    })
}

fn row(
    scene: &Scene,
    image: &Image,
    symbols: &SymbolTable,
    function: &Function,
    walk: &Walk,
) -> Option<Patched> {
    let (start, changed) = (function.start, function.changed.end);
    let both = |end: u64| text_diff::both(&scene.memory, image, start, (end - start) as usize);
    let end = changed.max(walk.jump_end.unwrap_or(0));
    let (file_bytes, memory_bytes) = both(end).or_else(|| both(changed))?;
    let (symbol, aliases) = name(scene, image, symbols, start).unzip();
    Some(Patched {
        symbol,
        aliases: aliases.unwrap_or_default(),
        module: image.path.to_string_lossy().into_owned(),
        address: start,
        target_symbol: walk.target.and_then(|at| symbol_at(scene, at)),
        owner: walk.target.and_then(|at| scene.owner(at)),
        file_bytes,
        memory_bytes,
    })
}

/// The public name of the function at `start`, and its others. What an indirect function was
/// resolved to is known by the name that programs call.
fn name(
    scene: &Scene,
    image: &Image,
    symbols: &SymbolTable,
    start: u64,
) -> Option<(String, Vec<String>)> {
    let here = symbols.starting_at(start.wrapping_sub(image.bias));
    let own = names::public(here);
    if here.iter().any(|symbol| symbol.is_exported) {
        return own;
    }
    let mut all = resolved(scene, symbols, start);
    all.extend(here.iter().filter_map(|symbol| variant_of(symbols, &symbol.name)));
    all.dedup();
    all.extend(own.into_iter().flat_map(|(name, aliases)| [vec![name], aliases].concat()));
    let mut all = all.into_iter();
    Some((all.next()?, all.collect()))
}

/// The indirect functions of `image` whose slots, in any library, hold `start`.
fn resolved(scene: &Scene, symbols: &SymbolTable, start: u64) -> Vec<String> {
    let is_indirect = |name: &str| is_indirect(symbols, name);
    let mut found: Vec<String> = Vec::new();
    for user in scene.images {
        let Ok(file) = user.open() else { continue };
        let view = FileView::new(&file, &user.elf);
        let slots = Dynamic::read(&view, &user.elf)
            .slots(&view, |name| str::from_utf8(name).is_ok_and(is_indirect));
        let addresses: Vec<u64> =
            slots.iter().map(|slot| user.bias.wrapping_add(slot.address)).collect();
        let mut bytes = vec![0; addresses.len() * 8];
        scene.memory.read_scattered(&addresses, 8, &mut bytes);
        let held = slots.iter().zip(memory::words(&bytes)).filter(|(_, holds)| *holds == start);
        found.extend(held.map(|(slot, _)| names::shown(&slot.name)));
    }
    found.sort_by_key(|name| (name.starts_with('_'), name.len(), name.clone()));
    found.dedup();
    found
}

fn is_indirect(symbols: &SymbolTable, name: &str) -> bool {
    symbols.named(name).is_some_and(|symbol| symbol.is_indirect && symbol.is_exported)
}

/// Of `__memcpy_avx_unaligned`, as the C library names its variants, `memcpy`.
fn variant_of(symbols: &SymbolTable, name: &str) -> Option<String> {
    let name = name.trim_start_matches('_');
    let ends = name.match_indices('_').map(|(at, _)| &name[..at]);
    ends.rev().find(|part| is_indirect(symbols, part)).map(names::shown)
}

fn symbol_at(scene: &Scene, address: u64) -> Option<String> {
    let image = image::find(scene.images, address)?;
    let symbols = scene.symbols(image);
    let (symbol, _) = symbols.at(address.wrapping_sub(image.bias))?;
    names::public(symbols.starting_at(symbol.address)).map(|(name, _)| name)
}
