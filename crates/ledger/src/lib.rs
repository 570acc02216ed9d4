//! Resident bytes → layers → series → verdict.
//!
//! Knows what a byte belongs to and whether its layer grows. Must never know BPF.
//!
//! # How a byte finds its layer
//! One pass over `smaps` gives every mapping with its resident bytes; their sum is the RSS that the
//! ledger answers for. A mapping is not an owner: adjacent anonymous mappings merge, so a mapping
//! may hold a thread's stack, an allocator's chunk and raw memory side by side. So owners *claim
//! ranges* ([`claim`]), most certain first, and a byte belongs to the first claim that holds it:
//!
//! 1. thread stacks, found from the thread's own control block, wherever the program put them;
//! 2. images: the `.bss` behind a library's data is `code`, though the kernel calls it anonymous;
//! 3. CPython's object arenas, listed by the interpreter's own table;
//! 4. heaps of allocators, by their own records. In glibc's, what is live is carved out as
//!    `heap_in_use` and the rest is `heap_retained`; raw `brk` memory between its segments is
//!    `anonymous`; mapped chunks are accepted up to malloc's own count, since memory whose `munmap`
//!    was put off looks the same. musl's and mimalloc's are split likewise where their records add up;
//!    what jemalloc and tcmalloc own is `heap`;
//! 5. zero pieces of huge pages are taken from whoever owns them, at full depth;
//! 6. what no claim holds has the layer of its mapping by kind ([`classify`]): file, shared memory,
//!    device, anonymous executable (`jit`), and `anonymous` last.
//!
//! A mapping with one owner gives it all its resident bytes; a mapping with several is divided by its
//! pages, read together with its `Rss` so that they are of one moment (`reading`). What a target
//! that runs on changed in between is in the layer of the largest piece, and is told as the drift.
//! The difference between RSS and the sum of the layers is printed as the residual: an owner that
//! claims more than is resident of its ranges, a wrong one that is, shows there.
#![forbid(unsafe_code)]

mod beyond;
pub mod cgroup;
pub mod claim;
pub mod classify;
mod layer;
mod own;
mod owners;
mod reading;
mod rows;
mod sample;
pub mod series;
pub mod table;
mod together;
pub mod verdict;
pub mod watch;

pub use beyond::{Beyond, Files, HeldFile, Kind};
pub use layer::Layer;
pub use own::own;
pub use sample::{Cost, Depth, LayerRow, Mapping, Sample, take};
pub use together::{Shared, Together, Total};
