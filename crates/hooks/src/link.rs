//! The dynamic linker's own list of what it loaded, in its own order.
//!
//! A debugger's interface (`struct r_debug` and `struct link_map` of glibc's and musl's link.h)
//! leads to it: the executable's `DT_DEBUG` points there. Names are looked up in the executable,
//! the preloads, and their libraries, breadth first: that is the order of the list, as far as it
//! was made at the start.

use plumb_target::image::{Definition, Dynamic, FileView, Slot, SlotKind};
use plumb_target::{Image, Memory, ReadMemory};

use crate::names::{C_FUNCTIONS, CPP_OPERATORS, is_memory_function};

/// A function that only a C++ runtime defines, and that no interposer replaces.
const CPP_RUNTIME: &str = "__cxa_allocate_exception";

/// One image as the dynamic linker sees it.
#[derive(Debug)]
pub(crate) struct Module<'a> {
    pub image: &'a Image,
    pub slots: Vec<Slot>,
    needed: Vec<String>,
    definitions: Vec<(&'static str, Definition)>,
    has_cpp_runtime: bool,
    /// The name that it was loaded under.
    loaded_as: String,
}

impl<'a> Module<'a> {
    fn read(image: &'a Image) -> Self {
        let mut module = Self {
            image,
            slots: Vec::new(),
            needed: Vec::new(),
            definitions: Vec::new(),
            has_cpp_runtime: false,
            loaded_as: String::new(),
        };
        let Ok(file) = image.open() else { return module };
        let view = FileView::new(&file, &image.elf);
        let dynamic = Dynamic::read(&view, &image.elf);
        for &name in C_FUNCTIONS.iter().chain(CPP_OPERATORS) {
            let found = dynamic.definitions(&view, name);
            module.definitions.extend(found.into_iter().map(|d| (name, d)));
        }
        module.has_cpp_runtime = !dynamic.definitions(&view, CPP_RUNTIME).is_empty();
        let wanted = |name: &[u8]| str::from_utf8(name).is_ok_and(is_memory_function);
        module.slots = dynamic.slots(&view, wanted);
        // A pointer in data may be assigned to by the program, unless it was made read-only.
        let relro = &image.elf.relro;
        module.slots.retain(|s| s.kind != SlotKind::Pointer || relro.contains(&s.address));
        module.needed = dynamic.needed;
        module
    }

    pub fn path(&self) -> String {
        self.image.path.to_string_lossy().into_owned()
    }

    pub fn defines(&self, name: &str) -> bool {
        self.definitions.iter().any(|(n, _)| *n == name)
    }

    /// Whether `address` (of the process) is what a lookup of `name` here gives. What the resolver
    /// of an indirect function chose may be anything within the image.
    pub fn defines_at(&self, name: &str, address: u64) -> bool {
        let own = self.definitions.iter().filter(|(n, _)| *n == name);
        own.into_iter().any(|(_, definition)| {
            definition.is_indirect || self.image.bias.wrapping_add(definition.address) == address
        })
    }

    /// Whether this is the library that a name ordinarily comes from.
    pub fn is_ordinary_for(&self, name: &str) -> bool {
        const C: &[&str] = &[
            "libc.so",
            "libc.musl",
            "libc-2",
            "ld-musl",
            "ld-linux",
            "ld-2",
            "libpthread",
            "libdl.",
            "libdl-",
            "librt.",
            "librt-",
        ];
        const CPP: &[&str] = &["libstdc++.so", "libc++.so", "libc++abi.so", "libsupc++.so"];
        let is = |list: &[&str]| {
            self.names().any(|name| list.iter().any(|prefix| name.starts_with(prefix)))
        };
        is(C) || crate::names::is_cpp(name) && (is(CPP) || self.has_cpp_runtime_inside())
    }

    /// A C++ runtime that was linked in statically brings its operators along: nobody's doing.
    fn has_cpp_runtime_inside(&self) -> bool {
        self.has_cpp_runtime && !self.defines("malloc")
    }

    pub fn is_dynamic_linker(&self) -> bool {
        self.names().any(|name| name.starts_with("ld-") || name == "ld.so")
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let file = self.image.path.file_name().and_then(|name| name.to_str());
        let loaded = self.loaded_as.rsplit('/').next().filter(|name| !name.is_empty());
        [self.image.elf.soname.as_deref(), file, loaded].into_iter().flatten()
    }

    /// Whether a library asked for as `wanted` (a path or a name) is this one.
    pub fn answers_to(&self, wanted: &str) -> bool {
        let name = wanted.rsplit('/').next().unwrap_or(wanted);
        self.loaded_as == wanted || !name.is_empty() && self.names().any(|own| own == name)
    }
}

/// One list: all that can see each other. Auditors and `dlmopen` have lists of their own.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    /// Positions in the modules, in the dynamic linker's order.
    pub order: Vec<usize>,
    /// Those in which every name is looked up first.
    pub startup: Vec<usize>,
    /// Those that stand where only a preload can.
    pub preloads: Vec<usize>,
}

/// The images of a process with the lists that they are in, the program's own list first.
#[derive(Debug)]
pub(crate) struct Linked<'a> {
    pub modules: Vec<Module<'a>>,
    pub namespaces: Vec<Namespace>,
}

impl<'a> Linked<'a> {
    pub fn read(images: &'a [Image], memory: &Memory) -> Self {
        let modules = images.iter().map(Module::read).collect();
        let mut linked = Self { modules, namespaces: Vec::new() };
        let mut debug = debug_address(images, memory).unwrap_or(0);
        const MAX_NAMESPACES: usize = 64;
        while debug != 0 && linked.namespaces.len() < MAX_NAMESPACES {
            let order = linked.walk(memory, debug);
            let is_first = linked.namespaces.is_empty();
            linked.namespaces.push(linked.namespace(order, is_first));
            // `r_next` is there from version 2 on.
            let version = memory.u32_at(debug).unwrap_or(0);
            debug = if version >= 2 { memory.u64_at(debug + 40).unwrap_or(0) } else { 0 };
        }
        linked
    }

    /// Follows one list; hostile lists are long or circular.
    fn walk(&mut self, memory: &Memory, debug: u64) -> Vec<usize> {
        const MAX_ENTRIES: usize = 16_384;
        let mut order = Vec::new();
        let mut at = memory.u64_at(debug.wrapping_add(8)).unwrap_or(0);
        for _ in 0..MAX_ENTRIES {
            let Some(words) = memory.words_at(at, 4) else { break };
            let [name, section, next] = [words[1], words[2], words[3]];
            let found = self.modules.iter().position(|m| m.image.range.contains(&section));
            if let Some(index) = found.filter(|index| !order.contains(index)) {
                let name = memory.c_string_at(name, 4096).unwrap_or_default();
                self.modules[index].loaded_as = String::from_utf8_lossy(&name).into_owned();
                order.push(index);
            }
            at = next;
        }
        order
    }

    fn namespace(&self, order: Vec<usize>, is_first: bool) -> Namespace {
        let Some(&main) = order.first() else { return Namespace::default() };
        if !is_first {
            return Namespace { startup: order.clone(), order, preloads: Vec::new() };
        }
        let direct = |&index: &usize| {
            let module = &self.modules[index];
            self.modules[main].needed.iter().any(|needed| module.answers_to(needed))
        };
        let first = order.iter().position(direct).unwrap_or(1);
        let before = order.get(1..first).unwrap_or_default().iter().copied();
        let preloads: Vec<usize> =
            before.filter(|&index| !self.modules[index].is_dynamic_linker()).collect();
        let roots: Vec<usize> = [main].into_iter().chain(preloads.iter().copied()).collect();
        let reached = self.closure(&roots, &order);
        let startup = order.iter().copied().filter(|index| reached.contains(index)).collect();
        Namespace { order, startup, preloads }
    }

    /// `roots` and the libraries that they need, directly or not, of those in `order`.
    pub fn closure(&self, roots: &[usize], order: &[usize]) -> Vec<usize> {
        let mut found = roots.to_vec();
        let mut at = 0;
        while let Some(&index) = found.get(at) {
            for needed in &self.modules[index].needed {
                let answers = |&&other: &&usize| self.modules[other].answers_to(needed);
                if let Some(&other) = order.iter().find(answers).filter(|o| !found.contains(o)) {
                    found.push(other);
                }
            }
            at += 1;
        }
        found
    }
}

/// What `DT_DEBUG` of the executable holds: only executables have one, also where the dynamic
/// linker was started by name.
fn debug_address(images: &[Image], memory: &Memory) -> Option<u64> {
    const DT_DEBUG: u64 = 21;
    images.iter().find_map(|image| {
        let section = &image.elf.dynamic;
        let words = ((section.end - section.start) / 8).min(8192) as usize;
        let words = memory.words_at(image.bias.wrapping_add(section.start), words)?;
        let mut entries = words.chunks_exact(2);
        entries.find(|entry| entry[0] == DT_DEBUG).map(|entry| entry[1]).filter(|&at| at != 0)
    })
}
