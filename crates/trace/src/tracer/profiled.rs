//! Stacks that a target's own profiler has collected.

use plumb_target::Process;

use super::Tracer;
use crate::Error;
use crate::dumps::Dump;
use crate::frames::Frame;

/// The code of a process, for addresses that come from elsewhere than from events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pid: u32,
    space: u32,
}

impl Tracer {
    /// Reads a process's code.
    ///
    /// # Errors
    /// A process that may not be read, or is gone.
    pub fn code(&mut self, process: &Process) -> Result<Code, Error> {
        let space = self.new_space();
        self.images.read(process, space, &mut self.probe)?;
        Ok(Code { pid: process.pid(), space })
    }

    /// Whether a dump is of this process: where its code is no other's is, as long as addresses are drawn
    /// at random. Code that was mapped meanwhile is read.
    pub fn is_of(&mut self, dump: &Dump, code: Code) -> bool {
        if let Ok(process) = Process::open(code.pid) {
            self.images.refresh(&process, code.space);
        }
        dump.code.first().is_some_and(|map| self.images.begins(code.space, |at| at == map.start))
    }

    /// The frames of a dump's stack, innermost first.
    pub fn frames_of(&mut self, code: Code, stack: &[u64]) -> Vec<Frame> {
        self.images.named((code.pid, code.space), stack)
    }
}
