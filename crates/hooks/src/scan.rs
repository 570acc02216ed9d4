//! One scan: what all readings share, and the order in which they are made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use plumb_target::symbols::SymbolTable;
use plumb_target::{Error, Image, Map, Memory, PAGE, Process, Range, image, maps};

use crate::follow::{self, Place};
use crate::link::Linked;
use crate::report::{Hooks, Unread};
use crate::{interposed, patched, preloads, tracers, unread};

/// Libraries come and go while a program starts; after this many looks it is not starting.
const MAX_LOOKS: usize = 16;

/// Looks at a running process. Nothing is injected and nothing is stopped.
///
/// What seems to be a finding is only believed when the libraries were the same after the look as
/// before it: else it may be of one that was just loaded, unloaded, or of an `exec`.
///
/// # Errors
/// Vanished, denied, or what the system answered. A single file that cannot be read is no error:
/// it is listed as unread.
pub fn scan(process: &Process) -> Result<Hooks, Error> {
    let mut before = maps::read(process)?;
    for _ in 0..MAX_LOOKS {
        let hooks = look(process, before.clone())?;
        // What was read of a process that ended meanwhile is no finding.
        if !process.is_alive() {
            return Err(Error::Vanished { pid: process.pid() });
        }
        let after = maps::read(process)?;
        if hooks.is_clean() && hooks.unread.is_empty() || code(&before).eq(code(&after)) {
            return Ok(hooks);
        }
        before = after;
    }
    let reason = "its libraries changed all the time that it was looked at".to_owned();
    let unread = vec![Unread { module: process.executable()?.display().to_string(), reason }];
    Ok(Hooks { unread, ..Hooks::default() })
}

/// The mapped code, by file.
fn code(maps: &[Map]) -> impl Iterator<Item = (Range, (u32, u32), u64)> {
    let code = maps.iter().filter(|map| map.has_file() && map.permissions.execute);
    code.map(|map| (map.range(), map.device, map.inode))
}

fn look(process: &Process, maps: Vec<Map>) -> Result<Hooks, Error> {
    let memory = Memory::open(process)?;
    let mut images = plumb_target::images(process, &maps);
    images.retain(|image| is_whole(image, &maps));
    let scene = Scene { process, memory, maps, images: &images, symbols: RefCell::default() };
    let linked = Linked::read(&images, &scene.memory);
    let mut unread = unread::find(&scene);
    let text = patched::find(&scene, &mut unread)?;
    Ok(Hooks {
        interposed: interposed::find(&scene, &linked),
        preloads: preloads::find(process, &linked)?,
        tracers: tracers::find(process, &scene.maps, text.breakpoints)?,
        patched: text.patched,
        unread,
        differing: text.differing,
    })
}

/// Whether the file's beginning is mapped where it should be. Runtimes map copies of a part of their
/// own text elsewhere (V8 its builtins, beside the code that it makes): around such a copy is other
/// memory.
fn is_whole(image: &Image, maps: &[Map]) -> bool {
    let first = image.elf.loads.first().map_or(0, |load| load.offset / PAGE * PAGE);
    maps::find(maps, image.range.start)
        .is_some_and(|map| map.path() == Some(&*image.path) && map.offset == first)
}

/// What is known of the process when it is looked at.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub process: &'a Process,
    pub memory: Memory,
    pub maps: Vec<Map>,
    pub images: &'a [Image],
    symbols: RefCell<HashMap<u64, Rc<SymbolTable>>>,
}

impl Scene<'_> {
    /// The symbols of an image, read once and only where they are asked for; empty where they
    /// cannot be read.
    pub fn symbols(&self, image: &Image) -> Rc<SymbolTable> {
        let mut known = self.symbols.borrow_mut();
        let read = || Rc::new(image.symbols().unwrap_or_default());
        known.entry(image.range.start).or_insert_with(read).clone()
    }

    /// What is at `address` for a walk from a patch of `image`, whose function is at `home` and whose
    /// other text that differs is at `patches`.
    pub fn place(&self, address: u64, image: &Image, home: &Range, patches: &[Range]) -> Place {
        if home.contains(&address) {
            return Place::Home;
        }
        if patches.iter().any(|range| range.contains(&address)) {
            return Place::Between;
        }
        match image::find(self.images, address) {
            Some(other) if other.range == image.range => Place::SameFile,
            _ => self.outside(address),
        }
    }

    /// Who owns what is reached from `address`, which was found in a slot.
    pub fn owner_through(&self, address: u64) -> Option<String> {
        let walk = follow::slot(&self.memory, address, |at| self.outside(at));
        walk.target.and_then(|target| self.owner(target))
    }

    fn outside(&self, address: u64) -> Place {
        if self.owner(address).is_some() {
            Place::File
        } else if self.is_executable(address) {
            Place::Between
        } else {
            Place::Nothing
        }
    }

    /// The file behind an address; none for anonymous memory and for memfds, where code is made.
    pub fn owner(&self, address: u64) -> Option<String> {
        if let Some(image) = image::find(self.images, address) {
            return Some(image.path.to_string_lossy().into_owned());
        }
        let map = maps::find(&self.maps, address)?;
        let path = map.path().filter(|_| !map.permissions.shared)?;
        (!path.starts_with("/dev") && !path.to_string_lossy().starts_with("/memfd:"))
            .then(|| path.to_string_lossy().into_owned())
    }

    fn is_executable(&self, address: u64) -> bool {
        maps::find(&self.maps, address).is_some_and(|map| map.permissions.execute)
    }
}
