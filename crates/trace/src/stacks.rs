//! Every stack seen, once.

use std::collections::HashMap;

use crate::account::StackId;
use crate::modules::Place;
use crate::python::PythonFrame;

/// One program counter of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// In a module's file.
    Placed(Place),
    /// The kernel's way back from a signal's handler.
    Signal,
    /// In code without a file, with the name that its compiler had left for it by then, if any.
    Compiled {
        /// Process.
        pid: u32,
        /// Where.
        pc: u64,
        /// As its compiler names it.
        name: Option<String>,
    },
    /// Here Go's runtime left the goroutine's stack: what follows is on that.
    Switch,
}

/// A stack, innermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stack {
    /// Machine code.
    pub native: Vec<Code>,
    /// Python, also innermost first.
    pub python: Vec<PythonFrame>,
    /// Whether the outermost frame is in it.
    pub complete: bool,
}

/// Stacks by id and by the kernel's name for them.
#[derive(Debug)]
pub struct Stacks {
    all: Vec<Stack>,
    by_name: HashMap<u64, StackId>,
    dropped: u64,
}

/// Memory is bounded whatever the target does: some 100,000 stacks of 30 frames are 100 MB.
const STACKS_MAX: usize = 100_000;

/// The stack of events whose own was not seen.
pub const UNKNOWN: StackId = 0;

impl Default for Stacks {
    fn default() -> Self {
        Self::new()
    }
}

impl Stacks {
    /// Only the unknown one.
    pub fn new() -> Self {
        Self { all: vec![Stack::default()], by_name: HashMap::new(), dropped: 0 }
    }

    /// The id that a name has.
    pub fn find(&self, name: u64) -> Option<StackId> {
        self.by_name.get(&name).copied()
    }

    /// Keeps a stack under a name. [`UNKNOWN`] where there are too many.
    pub fn insert(&mut self, name: u64, stack: impl FnOnce() -> Stack) -> StackId {
        if let Some(id) = self.find(name) {
            return id;
        }
        if self.all.len() >= STACKS_MAX {
            self.dropped += 1;
            return UNKNOWN;
        }
        self.all.push(stack());
        let id = (self.all.len() - 1) as StackId;
        self.by_name.insert(name, id);
        id
    }

    /// Lets a second name mean a stack.
    pub fn alias(&mut self, name: u64, id: StackId) {
        if self.by_name.len() < 2 * STACKS_MAX {
            self.by_name.insert(name, id);
        }
    }

    /// A stack by its id.
    pub fn get(&self, id: StackId) -> Option<&Stack> {
        self.all.get(id as usize)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.all.len() - 1
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
