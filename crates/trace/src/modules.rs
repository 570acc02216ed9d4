//! Which file's code lies where in an address space, read from the target's maps.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_target::{Map, Memory, Process, ReadMemory, image, maps};

use crate::elf::Elf;

/// A file, or the vDSO, by its place in [`Modules`].
pub type ModuleId = u32;

/// A code address within a module, as the module's file states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The module.
    pub module: ModuleId,
    /// The stated address.
    pub address: u64,
}

/// A file whose code some target runs.
#[derive(Debug)]
pub struct Module {
    /// The path, as the target names it.
    pub path: PathBuf,
    /// Its parts.
    pub elf: Elf,
    /// Kept open, so that the file can be read after the target and its namespace are gone.
    file: Option<File>,
    /// The file that names the code of one without symbols, likewise.
    debug: Option<File>,
}

impl Module {
    /// A path by which this process can read the file: the plain one where that is the same file.
    pub fn readable(&self) -> Option<PathBuf> {
        let file = self.file()?;
        let same = || {
            let (ours, theirs) = (file.metadata().ok()?, self.path.metadata().ok()?);
            Some(ours.dev() == theirs.dev() && ours.ino() == theirs.ino())
        };
        if same() == Some(true) {
            return Some(self.path.clone());
        }
        Some(held(file))
    }

    /// The file itself, where it is still open.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// A path of its debug file, where it has no symbols of its own and one is installed.
    pub fn debug(&self) -> Option<PathBuf> {
        self.debug.as_ref().map(held)
    }
}

fn held(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The debug file of a file without symbols: where the target's own root has it, then ours.
fn open_debug(process: &Process, elf: &Elf) -> Option<File> {
    let named = elf.build_id.as_deref().filter(|_| !elf.has_symbols);
    let path = image::debug_file(named?)?;
    File::open(process.path_in_root(&path)).or_else(|_| File::open(&path)).ok()
}

type FileKey = ((u32, u32), u64);

/// Every file seen, shared by all address spaces.
#[derive(Debug, Default)]
pub struct Modules {
    all: Vec<Arc<Module>>,
    by_file: HashMap<FileKey, Option<ModuleId>>,
    vdso: Option<ModuleId>,
}

/// Files are held open, with their debug files; a target that maps thousands of them must not use up our
/// descriptors.
const FILES_MAX: usize = 384;

impl Modules {
    /// A module by its id.
    pub fn get(&self, id: ModuleId) -> Option<&Arc<Module>> {
        self.all.get(id as usize)
    }

    fn of_map(&mut self, process: &Process, map: &Map) -> Option<ModuleId> {
        let key = (map.device, map.inode);
        if let Some(known) = self.by_file.get(&key) {
            return *known;
        }
        let id = self.open(process, map);
        self.by_file.insert(key, id);
        id
    }

    fn open(&mut self, process: &Process, map: &Map) -> Option<ModuleId> {
        let path = map.path()?;
        let file = open_mapped(process, map, path)?;
        let elf = Elf::read(file.try_clone().ok()?)?;
        let keep = self.all.len() < FILES_MAX;
        let debug = if keep { open_debug(process, &elf) } else { None };
        Some(self.push(Module { path: path.to_owned(), elf, file: keep.then_some(file), debug }))
    }

    fn vdso(&mut self, process: &Process, map: &Map) -> Option<ModuleId> {
        if self.vdso.is_none() {
            let mut bytes = vec![0; usize::try_from(map.len().min(1 << 20)).ok()?];
            let got = Memory::open(process).ok()?.read_at(map.start, &mut bytes);
            let elf = Elf::parse(bytes.get(..got)?)?;
            let module = Module { path: PathBuf::from("[vdso]"), elf, file: None, debug: None };
            self.vdso = Some(self.push(module));
        }
        self.vdso
    }

    fn push(&mut self, module: Module) -> ModuleId {
        self.all.push(Arc::new(module));
        (self.all.len() - 1) as ModuleId
    }
}

/// Opens the very file that is mapped, also from another mount namespace or when deleted.
fn open_mapped(process: &Process, map: &Map, path: &Path) -> Option<File> {
    let is_it = |f: &File| f.metadata().is_ok_and(|m| m.ino() == map.inode);
    let named = File::open(process.path_in_root(path)).ok().filter(is_it);
    named.or_else(|| {
        let link = format!("map_files/{:x}-{:x}", map.start, map.end);
        File::open(process.path(&link)).ok()
    })
}

/// One executable mapping of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where it is.
    pub range: Range<u64>,
    /// What to add to the module's stated addresses.
    pub bias: u64,
    /// The module.
    pub module: ModuleId,
}

/// The executable mappings of a process, in order of address: those of files, and where all others are.
///
/// # Errors
/// As for reading the maps.
pub fn placed(
    process: &Process,
    modules: &mut Modules,
) -> Result<(Vec<Placed>, Vec<Range<u64>>), plumb_target::Error> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for map in maps::read(process)? {
        if !map.permissions.execute {
            continue;
        }
        let vdso = map.name == "[vdso]";
        let id = match (vdso, map.has_file()) {
            (true, _) => modules.vdso(process, &map),
            (_, true) => modules.of_map(process, &map),
            _ => None,
        };
        let bias = |module| modules.get(module)?.elf.bias(map.start, map.offset);
        match id.and_then(|module| Some((module, bias(module)?))) {
            Some((module, bias)) => found.push(Placed { range: map.range(), bias, module }),
            None => others.push(map.range()),
        }
    }
    Ok((found, others))
}
