//! The address spaces that were seen, their code, and every stack in them.

use std::cell::OnceCell;
use std::collections::HashMap;

use plumb_target::{Memory, Process, ReadMemory};

use crate::Error;
use crate::account::StackId;
use crate::events::{Event, Kind, RawStack};
use crate::frames::Frame;
use crate::jit::Jits;
use crate::modules::Modules;
use crate::probe::Probe;
use crate::python::{self, PythonFrame, code::Codes};
use crate::stacks::{Code, Stack, Stacks, UNKNOWN};
use crate::symbols::Symbols;
use crate::unwind::{self, Space, Unwound};

/// One address space, as long as it runs one program.
#[derive(Debug)]
struct Image {
    space: Space,
    /// Code was mapped since its maps were read.
    stale: bool,
    python: Option<Codes>,
    go: bool,
}

impl Image {
    fn new() -> Self {
        Self { space: Space::new(), stale: true, python: None, go: false }
    }

    /// Has the goroutines of a process read, if it runs Go.
    fn find_go(
        &mut self,
        process: &Process,
        modules: &Modules,
        probe: &mut Probe,
    ) -> Result<(), Error> {
        self.go = self.python.is_none() && self.space.runs_go(modules);
        if self.go { probe.set_go(process.pid()) } else { Ok(()) }
    }

    /// Has the frames of a process's interpreter read, if it runs one.
    fn find_python(&mut self, process: &Process, probe: &mut Probe) -> Result<(), Error> {
        if self.python.is_none()
            && let Some(interpreter) = python::layout::find(process)
        {
            self.python = Some(Codes::new(interpreter));
            probe.set_python(process.pid(), interpreter.frames)?;
        }
        Ok(())
    }
}

/// A process's memory, opened when it is first read: most stacks need none of it.
struct Lazy {
    pid: u32,
    memory: OnceCell<Option<Memory>>,
}

impl Lazy {
    fn new(pid: u32) -> Self {
        Self { pid, memory: OnceCell::new() }
    }
}

impl ReadMemory for Lazy {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let open = || Memory::open(&Process::open(self.pid).ok()?).ok();
        self.memory.get_or_init(open).as_ref().map_or(0, |memory| memory.read_at(address, out))
    }
}

/// All address spaces by number, and what was seen in them.
#[derive(Debug, Default)]
pub(crate) struct Images {
    all: HashMap<u32, Image>,
    modules: Modules,
    stacks: Stacks,
    symbols: Symbols,
    jit: Jits,
}

impl Images {
    /// Reads the code of a process that runs already. What is mapped meanwhile is read with the first
    /// stack.
    pub(crate) fn read(
        &mut self,
        process: &Process,
        space: u32,
        probe: &mut Probe,
    ) -> Result<(), Error> {
        let mut image = Image::new();
        image.space.refresh(process, &mut self.modules)?;
        image.find_python(process, probe)?;
        image.find_go(process, &self.modules, probe)?;
        self.all.insert(space, image);
        Ok(())
    }

    /// A process runs another program, in an address space of another number.
    pub(crate) fn replace(&mut self, space: u32) {
        self.all.insert(space, Image::new());
    }

    /// There may be more code than was read.
    pub(crate) fn code_was_mapped(&mut self, space: u32) {
        if let Some(image) = self.all.get_mut(&space) {
            image.stale = true;
        }
    }

    /// The stack that a name of the kernel's means.
    pub(crate) fn stack(&self, name: u64) -> Option<StackId> {
        self.stacks.find(name)
    }

    /// How many different stacks were seen.
    pub(crate) fn stacks(&self) -> usize {
        self.stacks.len()
    }

    /// Takes in a copied stack, and teaches the kernel how to walk it.
    pub(crate) fn unwind(
        &mut self,
        event: &Event,
        raw: &RawStack<'_>,
        probe: &mut Probe,
    ) -> StackId {
        let Some(image) = self.all.get_mut(&event.space) else { return UNKNOWN };
        if (image.stale || !image.space.knows(raw.ip))
            && let Ok(process) = Process::open(event.tgid)
        {
            image.stale = image.space.refresh(&process, &mut self.modules).is_err();
            // Without it stacks are only poorer.
            image.find_python(&process, probe).ok();
            image.find_go(&process, &self.modules, probe).ok();
        }
        let memory = Lazy::new(event.tgid);
        let unwound = image.space.unwind(raw, &self.modules, &memory);
        for (pc, rule) in &unwound.rules {
            probe.teach(event.space, *pc, *rule);
        }
        let name = unwind::name(event.space, raw.python_hash, &unwound.pcs);
        let id = match self.stacks.find(name) {
            Some(known) => known,
            None => self.keep(event, raw, &unwound, name, &memory),
        };
        if event.hashed && event.stack != name {
            // The kernel's walk went another way: both names mean what was unwound here.
            self.stacks.alias(event.stack, id);
        }
        id
    }

    fn keep(
        &mut self,
        event: &Event,
        raw: &RawStack<'_>,
        unwound: &Unwound,
        name: u64,
        memory: &Lazy,
    ) -> StackId {
        let python = self.python(event.space, raw, memory);
        let Some(image) = self.all.get(&event.space) else { return UNKNOWN };
        let mut native = Vec::with_capacity(unwound.pcs.len());
        for (i, pc) in unwound.pcs.iter().enumerate() {
            if unwound.signals.contains(&i) {
                native.push(Code::Signal);
                continue;
            }
            // Where an allocation is seen, its function has just returned.
            let is_return = i > 0 || event.kind == Kind::Alloc;
            native.push(match image.space.place(*pc, is_return) {
                Some(place) => Code::Placed(place),
                None => Code::Compiled {
                    pid: event.tgid,
                    pc: *pc,
                    name: self.jit.find(event.tgid, *pc),
                },
            });
        }
        if image.go && !raw.python.is_empty() {
            native.push(Code::Switch);
            let goroutine = raw.python.iter().map_while(|f| image.space.place(f.code, true));
            native.extend(goroutine.map(Code::Placed));
        }
        let stack = Stack { native, python, complete: unwound.complete };
        self.stacks.insert(name, || stack)
    }

    fn python(&mut self, space: u32, raw: &RawStack<'_>, memory: &Lazy) -> Vec<PythonFrame> {
        let codes = self.all.get_mut(&space).and_then(|image| image.python.as_mut());
        codes.map_or_else(Vec::new, |codes| codes.frames(&raw.python, memory))
    }

    /// Reads the code of a process again.
    pub(crate) fn refresh(&mut self, process: &Process, space: u32) {
        if let Some(image) = self.all.get_mut(&space) {
            // What it was before is still right for what it was read for.
            image.space.refresh(process, &mut self.modules).ok();
        }
    }

    /// Whether code of an address space begins at one of these addresses.
    pub(crate) fn begins(&self, space: u32, at: impl Fn(u64) -> bool) -> bool {
        self.all.get(&space).is_some_and(|image| image.space.begins(at))
    }

    /// The frames of return addresses that somebody else has collected.
    pub(crate) fn named(&mut self, (pid, space): (u32, u32), pcs: &[u64]) -> Vec<Frame> {
        let Some(image) = self.all.get(&space) else { return Vec::new() };
        let mut frames = Vec::new();
        for pc in pcs {
            match image.space.place(*pc, true) {
                Some(place) => frames.extend(self.symbols.frames(place, &self.modules)),
                None => {
                    let function = self.jit.find(pid, *pc);
                    frames.push(Frame { function, ..Frame::unknown() });
                }
            }
        }
        frames
    }

    /// A stack's frames, innermost first, Python's among them.
    pub(crate) fn frames(&mut self, id: StackId) -> Vec<Frame> {
        let Some(stack) = self.stacks.get(id) else { return Vec::new() };
        let mut frames = Vec::new();
        for code in &stack.native {
            match code {
                Code::Placed(place) => frames.extend(self.symbols.frames(*place, &self.modules)),
                Code::Signal => {
                    let function = Some("<signal handler called>".to_owned());
                    frames.push(Frame { function, ..Frame::unknown() });
                }
                Code::Compiled { pid, pc, name } => {
                    let function = name.clone().or_else(|| self.jit.find(*pid, *pc));
                    frames.push(Frame { function, ..Frame::unknown() });
                }
                Code::Switch => leave_runtime(&mut frames),
            }
        }
        python::merge::merge(frames, &stack.python)
    }
}

/// Behind the function that switched stacks, the runtime's own is what was left of former calls.
fn leave_runtime(frames: &mut Vec<Frame>) {
    const SWITCHES: [&str; 4] =
        ["runtime.systemstack", "runtime.mcall", "runtime.morestack", "runtime.asmcgocall"];
    let switches = |f: &Frame| {
        f.function.as_deref().is_some_and(|name| {
            SWITCHES.iter().any(|s| {
                name.strip_prefix(s).is_some_and(|rest| rest.is_empty() || rest == ".abi0")
            })
        })
    };
    if let Some(at) = frames.iter().position(switches) {
        frames.truncate(at + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_switch_of_stacks_is_left_out() {
        let frame = |name: &str| Frame { function: Some(name.to_owned()), ..Frame::unknown() };
        let names = ["runtime.mmap", "runtime.systemstack.abi0", "runtime.newproc", "x"];
        let mut frames: Vec<Frame> = names.into_iter().map(frame).collect();
        leave_runtime(&mut frames);
        assert_eq!(frames.len(), 2);
        leave_runtime(&mut frames);
        assert_eq!(frames.len(), 2);
    }
}
