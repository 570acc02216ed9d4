//! Which frames are an allocator's own.

use plumb_trace::allocators::STAND_INS;
use plumb_trace::{Frame, FrameKind, Holding, Tracer};

/// How their functions begin where they are linked in.
const PREFIXES: [&str; 6] = ["mi_", "_mi_", "je_", "_rjem_", "tc_", "tcmalloc::"];
/// What any allocator is called by.
const CALLS: [&str; 10] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "__rust_alloc",
    "__rust_realloc",
    "sysmalloc",
    "_int_malloc",
];

/// Whether memory was taken by an allocator that stands in for libc's: the ledger may not recognise its
/// ranges, and what it maps is its own by the stack alone.
pub fn stands_in(frames: &[Frame]) -> bool {
    frames.iter().any(|f| {
        let module = f.module_name().unwrap_or_default();
        let function = f.function.as_deref().unwrap_or_default();
        STAND_INS.iter().any(|l| module.starts_with(l))
            || PREFIXES.iter().any(|p| function.starts_with(p))
    })
}

/// Whether memory was taken by any allocator.
pub fn allocates(frames: &[Frame]) -> bool {
    let calls = |f: &Frame| {
        let function = f.function.as_deref().unwrap_or_default();
        CALLS.contains(&function) || function.starts_with("operator new")
    };
    frames.iter().any(calls) || stands_in(frames)
}

/// Whether memory was taken for an arena of CPython's objects; `each` is the size of its mappings.
pub fn makes_objects(frames: &[Frame], each: u64) -> bool {
    const CALLS: [&str; 5] = [
        "_PyObject_ArenaMmap",
        "_PyObject_Malloc",
        "PyObject_Malloc",
        "PyObject_Realloc",
        "PyObject_Calloc",
    ];
    let calls = |f: &Frame| f.function.as_deref().is_some_and(|name| CALLS.contains(&name));
    (frames.iter().any(calls) || each_is_arena(frames, each)) && !allocates(frames)
}

/// An interpreter whose functions were stripped of their names is known by the size of what it maps itself.
fn each_is_arena(frames: &[Frame], each: u64) -> bool {
    /// Before CPython 3.10, and since.
    const ARENAS: [u64; 2] = [256 << 10, 1 << 20];
    const LIBC: [&str; 3] = ["libc.so", "libc-2", "ld-musl"];
    const INTERPRETER: [&str; 2] = ["python3", "libpython3"];
    let is_of = |f: &Frame, names: &[&str]| {
        f.module_name().is_some_and(|module| names.iter().any(|name| module.starts_with(name)))
    };
    let taker = frames.iter().find(|f| !is_of(f, &LIBC));
    let is_unnamed = |f: &Frame| f.kind == FrameKind::Native && f.function.is_none();
    ARENAS.contains(&each) && taker.is_some_and(|f| is_unnamed(f) && is_of(f, &INTERPRETER))
}

/// Resident bytes of these holdings whose stacks, and the size of whose mappings, are so.
pub fn held(
    tracer: &mut Tracer,
    holdings: &[Holding],
    mut is: impl FnMut(&[Frame], u64) -> bool,
) -> u64 {
    /// Smaller ones are not worth their names.
    const LEAST: u64 = 64 << 10;
    let mut bytes = 0;
    for h in holdings.iter().filter(|h| h.resident >= LEAST) {
        if is(&tracer.frames(h.stack), h.mapped / h.count.max(1)) {
            bytes += h.resident;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> Frame {
        let (function, module) = (Some(function.to_owned()), Some(module.to_owned()));
        Frame { function, module, ..Frame::unknown() }
    }

    #[test]
    fn an_allocator_is_known_by_its_library_or_its_names() {
        let main = frame("main", "/bin/server");
        let preloaded = [frame("mmap", "/lib/libc.so.6"), frame("x", "/lib/libtcmalloc.so.4")];
        let linked = [frame("mmap", "/lib/libc.so.6"), frame("_rjem_je_pages_map", "/bin/server")];
        let libc = [frame("mmap", "/lib/libc.so.6"), frame("sysmalloc", "/lib/libc.so.6")];
        let pool = [frame("mmap", "/lib/libc.so.6"), frame("pool_grow", "/lib/libpool.so"), main];
        assert!(stands_in(&preloaded) && stands_in(&linked) && !stands_in(&libc));
        let libpython = |name: &str| frame(name, "/lib/libpython3.11.so.1.0");
        let arena = [frame("mmap", "/lib/libc.so.6"), libpython("PyObject_Malloc")];
        let large = [libc[0].clone(), libc[1].clone(), libpython("PyObject_Malloc")];
        assert!(makes_objects(&arena, 5 << 20) && !makes_objects(&large, 1 << 20));
        assert!(allocates(&preloaded) && allocates(&libc) && !allocates(&pool));
    }

    #[test]
    fn a_stripped_interpreter_maps_arenas_by_their_size() {
        let bare = |module: &str| Frame { function: None, ..frame("", module) };
        let (mmap, python) = (frame("mmap", "/lib/libc.so.6"), bare("/usr/bin/python3.11"));
        let arena = [mmap.clone(), python.clone(), frame("PyUnicode_New", "/usr/bin/python3.11")];
        assert!(makes_objects(&arena, 1 << 20) && makes_objects(&arena, 256 << 10));
        assert!(!makes_objects(&arena, 3 << 20), "no arena has this size");
        let module = [mmap.clone(), bare("/usr/lib/python3/numpy.so"), python.clone()];
        assert!(!makes_objects(&module, 1 << 20), "a module's own memory");
        let malloc = [mmap, frame("malloc", "/lib/libc.so.6"), python];
        assert!(!makes_objects(&malloc, 1 << 20), "a large object is the heap's");
    }
}
