//! Names of code addresses: symbol tables, debug information, inlined functions, maps that JIT
//! compilers leave for perf.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};
use plumb_target::go_names::GoNames;
use plumb_target::symbols::{SymbolTable, demangled};
use plumb_target::{Process, image};

use crate::frames::{Frame, FrameKind};
use crate::modules::{Module, ModuleId, Modules, Place};

/// Looks names up, and remembers them.
pub struct Symbols {
    symbolizer: Symbolizer,
    known: HashMap<Place, Vec<Frame>>,
    tables: HashMap<ModuleId, Option<SymbolTable>>,
    own: HashMap<ModuleId, Option<Own>>,
}

/// What a stripped file has of names.
#[derive(Debug)]
enum Own {
    Left(SymbolTable),
    Go(GoNames),
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbols {
    /// Knows nothing yet.
    pub fn new() -> Self {
        let symbolizer = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            .enable_demangling(false)
            .build();
        Self { symbolizer, known: HashMap::new(), tables: HashMap::new(), own: HashMap::new() }
    }

    /// The frames at a place, innermost first: more than one where functions were inlined.
    pub fn frames(&mut self, place: Place, modules: &Modules) -> Vec<Frame> {
        if let Some(known) = self.known.get(&place) {
            return known.clone();
        }
        let frames = self.look_up(place, modules);
        self.known.insert(place, frames.clone());
        frames
    }

    fn look_up(&mut self, place: Place, modules: &Modules) -> Vec<Frame> {
        let Some(module) = modules.get(place.module) else { return vec![Frame::unknown()] };
        let name = module.path.to_string_lossy().into_owned();
        let bare = Frame {
            module: Some(name.clone()),
            address: Some(place.address),
            build_id: module.elf.build_id.as_deref().map(image::hex),
            ..Frame::unknown()
        };
        let files = module.readable().into_iter().chain(module.debug());
        let found = files.into_iter().find_map(|path| {
            let source = Source::Elf(Elf::new(path));
            let found = self.symbolizer.symbolize_single(&source, Input::VirtOffset(place.address));
            found.ok().as_ref().and_then(|s| s.as_sym()).map(|s| (s.addr, named(s, &name)))
        });
        let Some(sym) = found else {
            return vec![match self.own_name(place, module) {
                Some(name) => Frame { function: Some(name), address: None, build_id: None, ..bare },
                None => bare,
            }];
        };
        let (address, mut frames) = sym;
        if let Some(outer) = frames.last_mut()
            && outer.function.as_ref().is_some_and(|f| f.starts_with("__"))
            && let Some(public) = self.public(place.module, module, address)
        {
            outer.function = Some(public);
        }
        frames
    }

    /// The name that a stripped file has of its own: from symbols that were left in it compressed, or from
    /// Go's table.
    fn own_name(&mut self, place: Place, module: &Module) -> Option<String> {
        let names = self.own.entry(place.module).or_insert_with(|| {
            let file = module.file()?;
            let go = || GoNames::read(file).map(Own::Go);
            let left = || SymbolTable::read_compressed(file).map(Own::Left);
            if module.elf.is_go { go().or_else(left) } else { left() }
        });
        match names.as_ref()? {
            Own::Left(table) => table.at(place.address).map(|(s, _)| demangled(&s.name)),
            Own::Go(names) => names.at(place.address),
        }
    }

    /// The name by which others call what a library calls `__GI___mmap64`: `mmap`.
    fn public(&mut self, id: ModuleId, module: &Module, address: u64) -> Option<String> {
        let table = self.tables.entry(id).or_insert_with(|| {
            SymbolTable::read(&File::open(module.readable()?).ok()?, &module.path).ok()
        });
        let names = table.as_ref()?.starting_at(address).iter();
        let names = names.filter(|s| s.is_exported && s.is_function && !s.name.starts_with("__"));
        names.map(|s| s.name.clone()).min_by_key(|n| (n.starts_with('_'), n.len()))
    }
}

fn named(sym: &Sym<'_>, module: &str) -> Vec<Frame> {
    let frame = |function: &str, code: Option<&CodeInfo<'_>>| Frame {
        kind: FrameKind::Native,
        function: Some(demangled(function)),
        module: Some(module.to_owned()),
        file: code.map(|c| c.to_path().to_string_lossy().into_owned()),
        line: code.and_then(|c| c.line),
        address: None,
        build_id: None,
    };
    let outer = frame(&sym.name, sym.code_info.as_deref());
    let inlined = sym.inlined.iter().map(|f| frame(&f.name, f.code_info.as_ref()));
    let mut frames: Vec<Frame> = std::iter::once(outer).chain(inlined).collect();
    frames.reverse();
    // Debug information may list a function as inlined into its own alias.
    frames.dedup_by(|outer, inner| outer.function == inner.function);
    frames
}

/// Names from `/tmp/perf-PID.map`, the convention by which JIT compilers name their code.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// By start: end and name.
    names: std::collections::BTreeMap<u64, (u64, String)>,
}

/// A JIT's map is the target's to write: no more of it than this is read, in bytes.
const PERF_MAP_MAX: u64 = 64 << 20;

impl PerfMap {
    /// Reads the map of a process, in its own mount and pid namespace. Empty where there is none.
    pub fn read(process: &Process) -> Self {
        use std::io::Read;
        let pids = process.status().map(|s| s.namespace_pids).unwrap_or_default();
        let pid = pids.last().copied().unwrap_or(process.pid());
        let path = process.path_in_root(&PathBuf::from(format!("/tmp/perf-{pid}.map")));
        let mut text = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|f| f.take(PERF_MAP_MAX).read_to_end(&mut text));
        if read.is_err() {
            return Self::default();
        }
        Self::parse(&text)
    }

    /// Parses lines of `start size name`, both numbers in hex. Lines of another form are left out.
    pub fn parse(text: &[u8]) -> Self {
        let mut names = std::collections::BTreeMap::new();
        for line in text.split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            let mut parts = line.splitn(3, ' ');
            let mut number = || {
                let text = parts.next()?;
                u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
            };
            let (Some(start), Some(size)) = (number(), number()) else { continue };
            if let (Some(name), Some(end)) = (parts.next(), start.checked_add(size)) {
                names.insert(start, (end, name.to_owned()));
            }
        }
        Self { names }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name at an address.
    pub fn find(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.names.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }
}
