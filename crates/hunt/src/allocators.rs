//! Which frames are an allocator's own.

use plumb_trace::allocators::STAND_INS;
use plumb_trace::{Frame, Holding, Tracer};

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
        let module = f.module.as_deref().and_then(|m| m.rsplit('/').next()).unwrap_or_default();
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

/// Whether memory was taken for an arena of CPython's objects.
pub fn makes_objects(frames: &[Frame]) -> bool {
    const CALLS: [&str; 5] = [
        "_PyObject_ArenaMmap",
        "_PyObject_Malloc",
        "PyObject_Malloc",
        "PyObject_Realloc",
        "PyObject_Calloc",
    ];
    let calls = |f: &Frame| f.function.as_deref().is_some_and(|name| CALLS.contains(&name));
    frames.iter().any(calls) && !allocates(frames)
}

/// Resident bytes of these holdings whose stacks are so.
pub fn held(
    tracer: &mut Tracer,
    holdings: &[Holding],
    mut is: impl FnMut(&[Frame]) -> bool,
) -> u64 {
    /// Smaller ones are not worth their names.
    const LEAST: u64 = 64 << 10;
    let mut bytes = 0;
    for h in holdings.iter().filter(|h| h.resident >= LEAST) {
        if is(&tracer.frames(h.stack)) {
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
        assert!(makes_objects(&arena) && !makes_objects(&large));
        assert!(allocates(&preloaded) && allocates(&libc) && !allocates(&pool));
    }
}
