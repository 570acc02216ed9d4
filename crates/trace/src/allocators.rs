//! Which functions of a process give and take heap memory, in the allocator that it really uses.
//!
//! Only text that equals its file, since taking a probe off writes the file's byte back; never a
//! function of the mmap family; and never Go, whose stacks move under a return probe.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use plumb_target::{Image, Memory, Process, images, maps};

use crate::Error;
use crate::usdt::{Told, told};

/// In which arguments a function is told what is wanted: the cookies of `asks` in `bpf/alloc.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Ask {
    /// The bytes are the first.
    Malloc,
    /// The first times the second.
    Calloc,
    /// The second; the first is what it replaces.
    Realloc,
    /// The second; the first is an alignment.
    Aligned,
    /// The third; the first is where the address is put.
    Posix,
    /// The second times the third, behind a context.
    ContextCalloc,
    /// The third; the second is what it replaces, behind a context.
    ContextRealloc,
    /// Nothing is asked: this is where a block is taken, and its address is in a register.
    Taken,
}

/// Where the size of what was given is known from: the cookies of `gives` in `bpf/alloc.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Give {
    /// From the entry.
    Asked,
    /// From the word before it.
    Chunk,
    /// From its pool, since it is an object of Python's, or a part of one.
    Object,
}

/// A function to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What is read at its entry, if anything need be.
    pub entry: Option<Ask>,
    /// What is read at its return.
    pub leave: Give,
    /// The file, as this process can open it.
    pub path: PathBuf,
    /// Where the function begins in it.
    pub offset: u64,
}

/// A function that takes memory back, its address being the first argument, or the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// The file, as this process can open it.
    pub path: PathBuf,
    /// Where the function begins in it.
    pub offset: u64,
    /// Whether a context comes before the address.
    pub has_context: bool,
}

/// An instruction at which an inlined copy of an allocator has a block in a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    /// The file, as this process can open it.
    pub path: PathBuf,
    /// Where the instruction begins in it.
    pub offset: u64,
    /// The register, as instructions number it.
    pub register: u8,
}

/// Where an allocator that was inlined is probed.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    /// Where they take blocks.
    pub takings: Vec<Taking>,
    /// The functions beside them.
    pub points: Vec<Point>,
}

/// What is to be probed in a process.
#[derive(Debug, Clone, Default)]
pub struct Allocators {
    /// The functions.
    pub points: Vec<Point>,
    /// Those that take back; none of glibc's, whose chunks tell that they were.
    pub frees: Vec<Free>,
    /// What to probe instead of the points, where the kernel puts one program on many places.
    pub copies: Option<Copies>,
    /// The text that they are in.
    pub text: Vec<Range<u64>>,
    /// Whether all of it is glibc's malloc, whose chunks tell whether they are in use.
    pub glibc: bool,
    /// Where the program itself tells of what it samples.
    pub told: Vec<Told>,
}

/// Images whose text is guarded at once: `GUARDS` in `bpf/layout.h`.
pub const GUARDS: usize = 4;
/// Bytes compared with the file before a function is probed.
const COMPARED: usize = 64;
/// How the libraries of allocators that stand in for libc's begin.
pub const STAND_INS: [&str; 3] = ["libjemalloc", "libmimalloc", "libtcmalloc"];
/// What the functions are called behind these when they are linked into a program.
const PREFIXES: [&str; 5] = ["", "_rjem_", "je_", "mi_", "tc_"];

const FUNCTIONS: [(&str, Ask); 14] = [
    ("malloc", Ask::Malloc),
    ("calloc", Ask::Calloc),
    ("realloc", Ask::Realloc),
    ("aligned_alloc", Ask::Aligned),
    ("memalign", Ask::Aligned),
    ("posix_memalign", Ask::Posix),
    ("mallocx", Ask::Malloc),
    ("rallocx", Ask::Realloc),
    ("malloc_aligned", Ask::Malloc),
    ("zalloc", Ask::Malloc),
    ("zalloc_aligned", Ask::Malloc),
    ("realloc_aligned", Ask::Realloc),
    ("new", Ask::Malloc),
    ("newarray", Ask::Malloc),
];
/// Of these, how many mean an allocator without a prefix too.
const PLAIN: usize = 6;

/// The C++ operators, where the allocator has its own: libstdc++'s call malloc.
const OPERATORS: [(&str, Ask); 6] = [
    ("_Znwm", Ask::Malloc),
    ("_Znam", Ask::Malloc),
    ("_ZnwmRKSt9nothrow_t", Ask::Malloc),
    ("_ZnamRKSt9nothrow_t", Ask::Malloc),
    ("_ZnwmSt11align_val_t", Ask::Malloc),
    ("_ZnamSt11align_val_t", Ask::Malloc),
];

const FREES: [&str; 9] = [
    "free",
    "cfree",
    "dallocx",
    "sdallocx",
    "free_size",
    "free_size_aligned",
    "free_aligned",
    "delete",
    "deletearray",
];
/// Of these, how many mean an allocator without a prefix too.
const PLAIN_FREES: usize = 4;
/// The C++ operators, likewise.
const DELETES: [&str; 8] = [
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
];

/// Finds the allocators that a process uses.
///
/// # Errors
/// None that can be probed: why.
pub fn find(process: &Process) -> Result<Allocators, Error> {
    let maps = maps::read(process)?;
    let all = images(process, &maps);
    let mut found = Allocators { glibc: true, ..Allocators::default() };
    for image in &all {
        let told = told(process, image);
        if !told.is_empty() && found.text.len() < GUARDS {
            found.text.push(image.range.clone());
            found.told.extend(told);
        }
    }
    if found.told.is_empty() && all.iter().any(|image| image.elf.is_go) {
        return Err(refusal("malloc", "Go's allocator moves stacks; it must not be probed"));
    }
    let stand_in = |image: &&Image| STAND_INS.iter().any(|s| image.name().starts_with(s));
    // What a program has linked in, then what stands in for libc's malloc, or else that.
    let program = all.iter().find(|image| image.elf.has_interpreter || image.elf.soname.is_none());
    let mut last = None;
    let mut add = |found: &mut Allocators, image: &Image| match functions(process, image) {
        Ok(points) if !points.is_empty() && found.text.len() < GUARDS => {
            let glibc = is_glibc(image);
            found.glibc &= glibc;
            if !glibc {
                // Where one of them cannot be probed, its ends are not seen: no worse than none.
                found.frees.extend(frees(process, image).unwrap_or_default());
            }
            found.points.extend(points);
            found.text.push(image.range.clone());
        }
        Ok(_) => {}
        Err(why) => last = Some(why),
    };
    if let Some(image) = program {
        add(&mut found, image);
    }
    let (before, is_whole) = (found.points.len(), all.iter().any(|i| stand_in(&i)));
    all.iter().filter(stand_in).for_each(|image| add(&mut found, image));
    if !is_whole || found.points.len() == before {
        all.iter().filter(|image| is_libc(&image.name())).for_each(|i| add(&mut found, i));
    }
    if found.points.is_empty() && found.told.is_empty() {
        let none =
            || refusal("malloc", "no allocator is known by its symbols: linked in and stripped?");
        return Err(last.unwrap_or_else(none));
    }
    Ok(found)
}

fn is_libc(name: &str) -> bool {
    name.starts_with("libc.so") || name.starts_with("libc-") || name.starts_with("ld-musl")
}

/// glibc, shared or linked in: musl has no such function, and the others' have theirs beside it, by
/// which they stand in for glibc's.
fn is_glibc(image: &Image) -> bool {
    const OTHERS: [&str; 5] = ["mallocx", "je_mallocx", "_rjem_mallocx", "mi_malloc", "tc_malloc"];
    image.name() == "libc.so.6"
        || image.name().starts_with("libc-2")
        || image.symbols().is_ok_and(|s| {
            s.named("__libc_memalign").is_some() && OTHERS.iter().all(|o| s.named(o).is_none())
        })
}

fn functions(process: &Process, image: &Image) -> Result<Vec<Point>, Error> {
    let symbols = image.symbols()?;
    let mut points: Vec<Point> = Vec::new();
    let with_operators = !is_libc(&image.name());
    let prefixed = PREFIXES.iter().flat_map(|prefix| {
        FUNCTIONS.iter().map(move |(name, program)| (format!("{prefix}{name}"), *program))
    });
    let operators = OPERATORS.iter().filter(|_| with_operators);
    let operators = operators.map(|(name, program)| ((*name).to_owned(), *program));
    let glibc = is_glibc(image);
    let mut malloc = false;
    for (name, program) in prefixed.chain(operators) {
        let plain = FUNCTIONS[PLAIN..].iter().any(|(f, _)| *f == name);
        let symbol = symbols.named(&name).filter(|s| s.is_function && !s.is_indirect);
        let Some(symbol) = symbol.filter(|_| !plain) else { continue };
        if name.starts_with("_Z") && !malloc {
            break;
        }
        malloc |= program == Ask::Malloc;
        let offset = checked(process, image, &name, symbol.address)?;
        if !points.iter().any(|p| p.offset == offset) {
            let path = image.path_here();
            let sized = glibc && program != Ask::Posix;
            let leave = if sized { Give::Chunk } else { Give::Asked };
            points.push(Point { entry: (!sized).then_some(program), leave, path, offset });
        }
    }
    // The busiest, which are named first, are put on last and taken off first.
    points.reverse();
    Ok(if malloc { points } else { Vec::new() })
}

fn frees(process: &Process, image: &Image) -> Result<Vec<Free>, Error> {
    let symbols = image.symbols()?;
    let prefixed = PREFIXES.iter().flat_map(|prefix| {
        let known = if prefix.is_empty() { PLAIN_FREES } else { FREES.len() };
        FREES[..known].iter().map(move |name| format!("{prefix}{name}"))
    });
    let operators = DELETES.iter().filter(|_| !is_libc(&image.name()));
    let mut found: Vec<Free> = Vec::new();
    for name in prefixed.chain(operators.map(|name| (*name).to_owned())) {
        let symbol = symbols.named(&name).filter(|s| s.is_function && !s.is_indirect);
        let Some(symbol) = symbol else { continue };
        let offset = checked(process, image, &name, symbol.address)?;
        if !found.iter().any(|f| f.offset == offset) {
            found.push(Free { path: image.path_here(), offset, has_context: false });
        }
    }
    Ok(found)
}

/// Why a function is not probed.
pub(crate) fn refusal(function: &str, why: &str) -> Error {
    let module = "the target".to_owned();
    Error::Uprobe { function: function.to_owned(), module, why: why.to_owned() }
}

/// A function's offset in its file, once its bytes in memory were seen to be the file's.
pub(crate) fn checked(
    process: &Process,
    image: &Image,
    function: &str,
    address: u64,
) -> Result<u64, Error> {
    let offset = image.elf.offset_of(address);
    let offset = offset.ok_or_else(|| refusal(function, "not in the file"))?;
    let (mut file, mut memory) = ([0; COMPARED], [0; COMPARED]);
    let read = image.open()?.read_exact_at(&mut file, offset);
    read.map_err(|source| Error::Io { what: "read the allocator's file", source })?;
    Memory::open(process)?.read(address.wrapping_add(image.bias), &mut memory)?;
    if file != memory {
        return Err(refusal(function, "its text in memory differs from its file"));
    }
    Ok(offset)
}
