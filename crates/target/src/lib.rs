//! One other process: maps, memory, threads, ELF images, symbols, text against file, layouts of
//! allocators and of `CPython`.
//!
//! Knows how to look at a process from outside without changing it. Must never know verdicts, BPF,
//! or serving.
//!
//! # Design
//! A [`Process`] is a pid and its start time, so that a recycled pid is never taken for the process
//! that was named. Everything below it is a reading at one moment: [`maps`] and [`smaps`] say what
//! is mapped, [`Pagemap`] which pages are resident, [`Memory`] what the bytes are, [`images`] which
//! ELF files they come from. The target runs on while it is read, so every reader treats what it
//! finds as hostile: lengths are bounded, chains are counted, and a structure that contradicts
//! itself is reported as not understood instead of being followed.
//!
//! Walkers of allocators take the trait [`ReadMemory`], not a pid: the same code runs over a live
//! process, over a test's bytes and over a fuzzer's.

pub mod cgroups;
mod error;
pub mod glibc;
pub mod go_names;
pub mod image;
pub mod jemalloc;
pub mod jvm;
mod live;
pub mod maps;
pub mod memory;
pub mod mimalloc;
pub mod mounts;
pub mod musl;
pub mod pagemap;
mod printable;
pub mod process;
pub mod python;
mod radix;
pub mod residency;
pub mod rollup;
pub mod select;
pub mod smaps;
pub mod status;
pub mod symbols;
pub mod tcmalloc;
pub mod text_diff;
pub mod threads;
pub mod usdt;

pub use error::Error;
pub use image::{Image, images};
pub use maps::{Map, Permissions};
pub use memory::{Memory, ReadMemory};
pub use pagemap::Pagemap;
pub use printable::printable;
pub use process::Process;
pub use residency::Residency;

/// A half-open range of addresses of the target.
pub type Range = std::ops::Range<u64>;

/// The page size that maps and pagemaps count in, in bytes.
pub const PAGE: u64 = 4096;
