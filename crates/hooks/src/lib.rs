//! Who patched or interposed memory functions of a process.
//!
//! Knows text, GOT and PLT, preloads and tracers. Must never know verdicts.
//!
//! # Design
//! [`scan`] reads; it injects nothing and stops nobody. Four readings, each a file:
//! - `patched`: private copies of text pages against the file that is mapped. Text that the kernel
//!   shares with the file cannot differ and is not read. `follow` walks from a patch, instruction by
//!   instruction, through memory without a name, until a library is reached; `machine` knows the
//!   constants on that way.
//! - `interposed`: the dynamic linker's own list (`link`) says which library defines a name first,
//!   and so where each slot should lead. Who comes before the C library, and whose slots lead
//!   elsewhere, is reported.
//! - `preloads`: what the environment asked for, and what stands where only a preload can.
//! - `tracers`: debuggers, filters, and breakpoints in the text. A breakpoint is one byte; it is
//!   told apart from a patch, and uprobes (ours too) are breakpoints.
//!
//! The rule where it is unclear: say nothing. A clean process must never raise an alarm, so each
//! reading leaves out what the dynamic linker, the kernel or a compiler may rightly have done, and
//! what could not be read is listed as `unread` and not as different.
#![forbid(unsafe_code)]

mod follow;
mod interposed;
mod link;
mod machine;
mod names;
mod patched;
mod preloads;
mod report;
mod rows;
mod scan;
mod show;
mod tracers;
mod unread;

pub use names::is_memory_function;
pub use plumb_target::Error;
pub use report::{Hooks, Interposed, Patched, Preload, PreloadSource, Tracer, TracerKind, Unread};
pub use scan::scan;

/// Where the patched function at `start` leads: for the fuzzer, which feeds it any code. Code is walked
/// where `between` says so, and the walk ends elsewhere.
#[doc(hidden)]
pub fn leads_to(
    memory: &impl plumb_target::ReadMemory,
    start: u64,
    changed: &plumb_target::Range,
    between: impl Fn(u64) -> bool,
) -> Option<u64> {
    use follow::Place::{Between, File};
    let place = |at| if between(at) { Between } else { File };
    let slot = follow::slot(memory, start, place);
    follow::patch(memory, start, changed, place).target.or(slot.target)
}
