//! eBPF programs and their loader, interval accounting, unwinding, Python frames.
//!
//! Knows events and stacks. Must never know verdicts.
//!
//! # Design
//! `bpf/` holds the programs: raw tracepoints of the syscalls that map and unmap, of fork, exec,
//! exit and page faults, filtered by a map of process ids. [`probe`] loads them from a checked-in
//! object. What they send is read by [`events`] and replayed by [`account`] on [`intervals`], which
//! are pure: so the accounting is tested against a page-by-page model without a kernel. A stack is
//! copied the first time it is seen, unwound by [`unwind`] with the modules' own tables
//! ([`modules`], [`elf`]; [`guess`] where there are none), and from then on named in the kernel by a
//! hash of its return addresses.
//! [`symbols`] gives names, [`python`] the frames of the interpreter, [`resident`] asks the kernel
//! which pages of what is still mapped are there. [`burst`] probes the allocator that [`allocators`]
//! found for milliseconds at a time, `keeper` switches the probes so that they go when we are killed,
//! `programs` loads what runs there, and [`samples`] keeps what was seen. Where a program tells of its
//! allocations by itself, [`usdt`] says how, and where its allocator writes profiles, [`dumps`] reads
//! them; Python's objects are followed by `objects`, from look to look, and what of them was kept
//! [`followed`] reckons. [`tracer`] is all of it, for one process tree.

pub mod account;
pub mod allocators;
pub mod burst;
mod digest;
pub mod dumps;
pub mod elf;
mod error;
pub mod events;
pub mod followed;
pub mod frames;
pub mod guess;
mod headers;
mod images;
pub mod intervals;
mod jit;
mod keeper;
mod marks;
pub mod modules;
mod objects;
pub mod pools;
pub mod probe;
mod programs;
pub mod python;
pub mod resident;
pub mod samples;
pub mod stacks;
pub mod symbols;
mod syscalls;
pub mod tracer;
pub mod unwind;
pub mod usdt;

pub use error::Error;
pub use frames::{Frame, FrameKind};
pub use resident::Holding;
pub use tracer::Tracer;
