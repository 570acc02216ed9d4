//! Where patched x86-64 code leads.
//!
//! Hooks come in many shapes: near jumps, jumps through slots, constants pushed and returned to,
//! trampolines that save registers, count, and call. So the code is not matched against shapes but
//! walked, instruction by instruction, with the constants that a [`Machine`] knows. Conditional
//! branches are passed by; what depends on data is not guessed at.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use plumb_target::{Range, ReadMemory};

use crate::machine::{Flow, Machine};

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Code of another file: the walk ends there.
    File,
    /// Code of the file that was patched: the walk ends there if it jumps. A call may be the original
    /// code's: it counts only where the walk does not come home.
    SameFile,
    /// The patched function itself, where trampolines end.
    Home,
    /// Code that no file holds, or that was patched too: it is walked.
    Between,
    /// Nothing that can run.
    Nothing,
}

/// How a walk went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Where it ended up; `None` where that is not known, or is no file.
    pub target: Option<u64>,
    /// Where the patch's own jump ends.
    pub jump_end: Option<u64>,
    /// The places between.
    pub between: Vec<u64>,
}

/// Trampolines are shorter; more is a circle.
const MAX_INSTRUCTIONS: usize = 512;
const LONGEST: usize = 15;

/// Walks the function at `start` up to the jump that lies in `changed`, and on from there.
pub(crate) fn patch(
    memory: &impl ReadMemory,
    start: u64,
    changed: &Range,
    place: impl Fn(u64) -> Place,
) -> Walk {
    // Data before the change may hide where its instructions begin.
    let walk = from(memory, start, changed, &place);
    if walk.jump_end.is_none() && start != changed.start {
        return from(memory, changed.start, changed, &place);
    }
    walk
}

fn from(
    memory: &impl ReadMemory,
    start: u64,
    changed: &Range,
    place: &impl Fn(u64) -> Place,
) -> Walk {
    let mut machine = Machine::default();
    let mut code = Code { memory, window: 0..0, bytes: Vec::new() };
    let mut at = start;
    while at < changed.end {
        let Some(instruction) = code.at(at) else { break };
        let flow = machine.step(memory, &instruction);
        at = instruction.next_ip();
        if at <= changed.start {
            // The original code before a hook in its middle; what follows a jump comes from elsewhere.
            if flow != Flow::Next {
                machine = Machine::default();
            }
            continue;
        }
        let (target, is_call) = match flow {
            Flow::Next => continue,
            Flow::Stop => break,
            Flow::Jump(target) | Flow::Return(target) => (target, false),
            Flow::Call(target) => (target, true),
        };
        let mut walk = Walk { jump_end: Some(at), ..Walk::default() };
        if let Some(target) = target {
            if is_call {
                machine.push(None);
            }
            walk.on(&mut code, machine, target, place);
        }
        return walk;
    }
    Walk::default()
}

/// Where `address`, found in a slot, leads.
pub(crate) fn slot(memory: &impl ReadMemory, address: u64, place: impl Fn(u64) -> Place) -> Walk {
    let mut walk = Walk::default();
    let mut code = Code { memory, window: 0..0, bytes: Vec::new() };
    walk.on(&mut code, Machine::default(), address, &place);
    walk
}

impl Walk {
    /// On from a jump to `target`.
    fn on(
        &mut self,
        code: &mut Code<impl ReadMemory>,
        mut machine: Machine,
        target: u64,
        place: &impl Fn(u64) -> Place,
    ) {
        let mut at = match place(target) {
            Place::File | Place::SameFile => {
                self.target = Some(target);
                return;
            }
            Place::Between => target,
            Place::Home | Place::Nothing => return,
        };
        self.between.push(at);
        let mut called = None;
        for _ in 0..MAX_INSTRUCTIONS {
            let Some(instruction) = code.at(at) else { return };
            let flow = machine.step(code.memory, &instruction);
            at = instruction.next_ip();
            match flow {
                Flow::Next => {}
                Flow::Stop | Flow::Jump(None) | Flow::Return(None) => {
                    self.target = called;
                    return;
                }
                Flow::Jump(Some(to)) | Flow::Return(Some(to)) => match place(to) {
                    Place::File | Place::SameFile => {
                        self.target = Some(to);
                        return;
                    }
                    Place::Between => {
                        self.between.push(to);
                        at = to;
                    }
                    Place::Home | Place::Nothing => return,
                },
                Flow::Call(to) => match to.map(place) {
                    Some(Place::File) => {
                        self.target = to;
                        return;
                    }
                    Some(Place::Between) => {
                        machine.push(Some(at));
                        at = to.unwrap_or(at);
                        self.between.push(at);
                    }
                    there => {
                        if there == Some(Place::SameFile) {
                            called = called.or(to);
                        }
                        machine.after_call();
                    }
                },
            }
        }
    }
}

/// Code, read a window at a time.
struct Code<'a, M> {
    memory: &'a M,
    window: Range,
    bytes: Vec<u8>,
}

impl<M: ReadMemory> Code<'_, M> {
    fn at(&mut self, address: u64) -> Option<Instruction> {
        const WINDOW: usize = 256;
        let inside =
            |window: &Range| window.contains(&address) && window.end - address >= LONGEST as u64;
        if !inside(&self.window) {
            self.bytes.resize(WINDOW, 0);
            let got = self.memory.read_at(address, &mut self.bytes);
            self.bytes.truncate(got);
            self.window = address..address.saturating_add(got as u64);
        }
        let bytes = self.bytes.get((address - self.window.start) as usize..)?;
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        let instruction = decoder.can_decode().then(|| decoder.decode())?;
        (!instruction.is_invalid()).then_some(instruction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_target::memory::Pieces;

    const AT: u64 = 0x7f00_0000_1000;
    const TO: u64 = 0x7f11_2233_4455;
    /// Executable memory of no file.
    const PAGE: u64 = 0x7f00_0001_0000;

    fn place(address: u64) -> Place {
        match address {
            TO => Place::File,
            _ if (AT..AT + 0x80).contains(&address) => Place::Home,
            _ if (PAGE..PAGE + 0x1000).contains(&address) => Place::Between,
            _ => Place::Nothing,
        }
    }

    fn walk_with(code: &[u8], trampoline: &[u8]) -> Walk {
        let mut memory = Pieces::default();
        memory.put(AT, code.to_vec());
        memory.put(AT + 0x100, TO.to_le_bytes().to_vec());
        memory.put(PAGE, trampoline.to_vec());
        patch(&memory, AT, &(AT..AT + code.len() as u64), place)
    }

    fn walk(code: &[u8]) -> Option<(u64, u64)> {
        let walk = walk_with(code, &[]);
        walk.target.zip(walk.jump_end.map(|end| end - AT))
    }

    fn constant(before: &[u8], after: &[u8]) -> Vec<u8> {
        [before, TO.to_le_bytes().as_slice(), after].concat()
    }

    fn to_slot(before: &[u8], after: &[u8]) -> Vec<u8> {
        let by = (0x100 - before.len() as u32 - 4).to_le_bytes();
        [before, &by, after].concat()
    }

    fn far(before: &[u8], at: u64, to: u64) -> Vec<u8> {
        let by = to.wrapping_sub(at + before.len() as u64 + 5) as u32;
        [before, &[0xe9], &by.to_le_bytes()].concat()
    }

    #[test]
    fn every_shape_is_followed() {
        assert_eq!(walk(&to_slot(&[0xff, 0x25], &[])), Some((TO, 6)));
        assert_eq!(walk(&to_slot(&[0xf2, 0xff, 0x25], &[])), Some((TO, 7)));
        assert_eq!(walk(&to_slot(&[0xff, 0x35], &[0xc3])), Some((TO, 7)));
        assert_eq!(walk(&to_slot(&[0x4c, 0x8b, 0x1d], &[0x41, 0xff, 0xe3])), Some((TO, 10)));
        assert_eq!(walk(&to_slot(&[0x48, 0x8d, 0x05], &[0xff, 0x20])), Some((TO, 9)));
        assert_eq!(walk(&constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe3])), Some((TO, 13)));
        assert_eq!(walk(&constant(&[0x48, 0xb8], &[0xff, 0xe0])), Some((TO, 12)));
        assert_eq!(walk(&constant(&[0x48, 0xb8], &[0x50, 0xc3])), Some((TO, 12)));
        // The register that is used is kept by the hook: push rax, its constant, xchg, ret.
        let kept = [&[0x50, 0x48, 0xb8][..], &TO.to_le_bytes(), &[0x48, 0x87, 0x04, 0x24, 0xc3]];
        assert_eq!(walk(&kept.concat()), Some((TO, 16)));
        let halves = [0x68, 0x55, 0x44, 0x33, 0x22, 0xc7, 0x44, 0x24, 4, 0x11, 0x7f, 0, 0, 0xc3];
        assert_eq!(walk(&halves), Some((TO, 14)));
    }

    #[test]
    fn trampolines_are_walked() {
        let jump = far(&[0xf3, 0x0f, 0x1e, 0xfa, 0x90], AT, PAGE);
        // sub ebx, 16 has the byte of a short jump in it; flags and registers are saved; a call.
        let saving = [0x83, 0xeb, 0x10, 0x9c, 0x50, 0x51, 0x48, 0x89, 0xe3, 0x48, 0x83, 0xe4, 0xf0];
        let call = constant(&[0x48, 0xb8], &[0xff, 0xd0]);
        let walk = walk_with(&jump, &[&saving[..], &call].concat());
        assert_eq!((walk.target, walk.between.as_slice()), (Some(TO), &[PAGE][..]));
        assert_eq!(walk.jump_end, Some(AT + 10));
        // It only counts, and goes back.
        let back = far(&[0x50, 0x48, 0xff, 0x00, 0x58], PAGE, AT + 10);
        assert_eq!(walk_with(&jump, &back).target, None);
        // So does one that first does what the function did.
        let moved = [&[0xe8][..], &0x100u32.to_le_bytes(), &back].concat();
        assert_eq!(walk_with(&jump, &moved).target, None);
        // It leads to itself.
        assert_eq!(walk_with(&jump, &[0xeb, 0xfe]).target, None);
        // A call to code between comes back, and then it jumps.
        let inner = [0xe8, 13, 0, 0, 0];
        let outer = constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe3]);
        let walk = walk_with(&jump, &[&inner[..], &outer, &[0xc3]].concat());
        assert_eq!(walk.target, Some(TO));
    }

    #[test]
    fn other_code_is_not_guessed_at() {
        assert_eq!(walk(&[0x31, 0xc0, 0xc3]), None);
        assert_eq!(walk(&constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe2])), None);
        assert_eq!(walk(&constant(&[0x49, 0xbb], &[0xff, 0xe3])), None);
        // The constant was overwritten by what is not known: rdtsc.
        assert_eq!(walk(&constant(&[0x48, 0xb8], &[0x0f, 0x31, 0xff, 0xe0])), None);
        assert_eq!(walk(&[0xe9, 0, 0]), None);
        assert_eq!(walk(&[0xcc]), None);
    }

    /// Any bytes, over a simple generator: the walk ends and never panics.
    #[test]
    fn any_bytes_are_walked() {
        let mut state = 1u64;
        for round in 0..20_000 {
            let mut bytes = [0; 48];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            // Prefixes and stack operations more often than chance would have them.
            bytes[round % 40] = [0x48, 0xff, 0xe9, 0x50, 0xc3, 0x8b, 0x24, 0xc7][round % 8];
            let mut memory = Pieces::default();
            for address in [PAGE, u64::MAX - 47] {
                memory.put(address, bytes.to_vec());
                slot(&memory, address, |_| Place::Between);
                patch(&memory, address, &(address..u64::MAX), |_| Place::Between);
            }
        }
    }
}
