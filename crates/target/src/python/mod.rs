//! CPython's object allocator, read from outside, without symbols.
//!
//! `obmalloc` keeps an array of `arena_object`s, grown by doubling from 16. It is found from the
//! interpreter's writable data: a pointer to an array in which every entry agrees with itself (an
//! arena's address, its pools, its free count, links that stay inside the array). From 3.12 the
//! state belongs to the interpreter, whose main one is static data too, so the same search holds.
//! Layouts follow `Objects/obmalloc.c` and `Include/internal/pycore_obmalloc.h`.
//!
//! | CPython | arenas and pools | state |
//! |---|---|---|
//! | 3.9 | 256 KiB of 4 KiB | run here |
//! | 3.10 to 3.14 | 1 MiB of 16 KiB | run here |
//! | free-threaded builds | mimalloc: not read | said |
//!
//! Sub-interpreters with an allocator of their own (3.12 and later) are not found: their arenas stay
//! anonymous memory.

mod arenas;
mod pools;

pub use arenas::{Arena, find};
pub use pools::{POOL_HEADER, Pool, Usage, pool_at, pool_of, usage};

use crate::Image;

/// Which interpreter an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Its minor version: 11 of 3.11.
    pub minor: u32,
    /// Whether it is built without the global lock: its objects live in mimalloc's heaps.
    pub free_threaded: bool,
    /// Whether this layout has been run against a real interpreter of that version.
    pub tested: bool,
}

/// The minor versions whose layouts were run against real interpreters.
pub const TESTED: std::ops::RangeInclusive<u32> = 9..=14;

/// The interpreter that an image holds, told by its file name: `libpython3.11.so.1.0`,
/// `python3.11`. A static build under another name is not seen.
pub fn interpreter(image: &Image) -> Option<Interpreter> {
    let name = image.name();
    let rest = name.strip_prefix("libpython3.").or_else(|| name.strip_prefix("python3."))?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let minor = rest[..digits].parse().ok()?;
    let free_threaded = rest[digits..].starts_with('t');
    Some(Interpreter { minor, free_threaded, tested: TESTED.contains(&minor) && !free_threaded })
}
