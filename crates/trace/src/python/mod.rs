//! Python frames: where an interpreter keeps them, and what they mean.
//!
//! The BPF side copies the chain of frames at the moment of the event, as addresses of code objects
//! and places in them. Code objects do not change and live long, so their names are read later, by
//! [`code`]. [`merge`] puts them where they ran: between the native frames.
//! [`census`] counts the interpreter's objects by type, [`allocator`] finds the functions that give them.

pub mod allocator;
pub mod census;
pub mod code;
pub mod collector;
pub(crate) mod constructors;
pub mod layout;
pub mod lines;
pub mod merge;
mod search;
mod takings;

/// One frame of Python source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Qualified where the version tells.
    pub function: String,
    /// As compiled.
    pub file: String,
    /// Line, where the code object's table could be read.
    pub line: Option<u32>,
    /// Whether C called it: the run of frames that one native evaluation loop holds ends here.
    pub entry: bool,
}
