//! The report in the forms of other tools.

mod diff;
mod firefox;
mod flame;
mod folded;
mod html;
mod pprof;

pub use diff::diff;
pub use firefox::firefox;
pub use folded::folded;
pub use html::html;
pub use pprof::pprof;

use crate::report::Culprit;

/// What a stack weighs in every export, in bytes.
fn weight(culprit: &Culprit) -> u64 {
    culprit.outstanding_bytes.saturating_add(culprit.older_bytes)
}

/// A frame's name; its module where it has none.
fn label(frame: &plumb_trace::Frame) -> String {
    let module = || format!("[{}]", frame.module.as_deref().unwrap_or("unknown"));
    frame.function.clone().unwrap_or_else(module)
}
