//! As much of an x86-64 processor as hooks need: constants on their way to a jump.
//!
//! Knows which registers and which words of the stack hold a constant, and which instructions move
//! one. What it does not understand makes what it may have written unknown, never wrong.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use plumb_target::ReadMemory;

/// What an instruction does to the flow, with its destination where that is a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    Jump(Option<u64>),
    Call(Option<u64>),
    Return(Option<u64>),
    /// Nothing runs after it.
    Stop,
}

/// Registers and stack: `None` where unknown.
#[derive(Debug, Default, Clone)]
pub(crate) struct Machine {
    registers: [Option<u64>; 16],
    stack: Vec<Option<u64>>,
}

const DEEPEST: usize = 256;
const RSP: usize = 4;

impl Machine {
    /// Takes one instruction in.
    pub fn step(&mut self, memory: &impl ReadMemory, code: &Instruction) -> Flow {
        use Mnemonic as M;
        match code.mnemonic() {
            M::Jmp => return Flow::Jump(self.operand(memory, code, 0)),
            M::Call => return Flow::Call(self.operand(memory, code, 0)),
            M::Ret => return Flow::Return(self.stack.pop().flatten()),
            M::Hlt | M::Ud2 | M::Int3 => return Flow::Stop,
            M::Mov | M::Movsxd => {
                let value = self.operand(memory, code, 1);
                self.write(code, value);
            }
            M::Lea => {
                let value = self.address(code);
                if register(code.op0_register()) == Some(RSP) {
                    self.move_stack(code.memory_base(), code.memory_displacement64());
                } else {
                    self.write(code, value);
                }
            }
            M::Xor | M::Sub if same_registers(code) => self.write(code, Some(0)),
            M::Add | M::Sub if register(code.op0_register()) == Some(RSP) => {
                let by = self.operand(memory, code, 1).unwrap_or(1);
                let by = if code.mnemonic() == M::Sub { by.wrapping_neg() } else { by };
                self.move_stack(Register::RSP, by);
            }
            M::Push => {
                let value = self.operand(memory, code, 0);
                self.push(value);
            }
            M::Pushfq => self.push(None),
            M::Pop => {
                let value = self.stack.pop().flatten();
                self.write(code, value);
            }
            M::Popfq => drop(self.stack.pop()),
            M::Xchg => {
                let [a, b] = [0, 1].map(|n| self.operand(memory, code, n));
                self.set(code, 0, b);
                self.set(code, 1, a);
            }
            _ => self.forget(code),
        }
        Flow::Next
    }

    /// Where a call will come back to.
    pub fn push(&mut self, value: Option<u64>) {
        if self.stack.len() >= DEEPEST {
            self.stack.clear();
        }
        self.stack.push(value);
    }

    /// What a function may change that was called and not followed.
    pub fn after_call(&mut self) {
        const KEPT: [usize; 6] = [3, 5, 12, 13, 14, 15];
        for (index, register) in self.registers.iter_mut().enumerate() {
            if !KEPT.contains(&index) {
                *register = None;
            }
        }
    }

    fn operand(&self, memory: &impl ReadMemory, code: &Instruction, n: u32) -> Option<u64> {
        match code.op_kind(n) {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                Some(code.near_branch_target())
            }
            OpKind::Register => {
                let value = self.registers[register(code.op_register(n))?]?;
                Some(if is_half(code.op_register(n)) { value & 0xffff_ffff } else { value })
            }
            OpKind::Memory => {
                if let Some(index) = self.slot(code) {
                    return *self.stack.get(index)?;
                }
                let address = self.address(code)?;
                (code.memory_size().size() == 8).then(|| memory.u64_at(address))?
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => None,
            _ => code.try_immediate(n).ok(),
        }
    }

    fn address(&self, code: &Instruction) -> Option<u64> {
        if code.segment_prefix() != Register::None {
            return None;
        }
        if code.is_ip_rel_memory_operand() {
            return Some(code.ip_rel_memory_address());
        }
        let part = |name: Register| match name {
            Register::None => Some(0),
            _ => self.registers[register(name).filter(|&index| index != RSP)?],
        };
        let index = part(code.memory_index())?.wrapping_mul(u64::from(code.memory_index_scale()));
        Some(
            part(code.memory_base())?
                .wrapping_add(index)
                .wrapping_add(code.memory_displacement64()),
        )
    }

    /// The word of the known stack that a memory operand names.
    fn slot(&self, code: &Instruction) -> Option<usize> {
        let plain = code.memory_index() == Register::None && code.memory_base() == Register::RSP;
        let depth = code.memory_displacement64();
        (plain && depth.is_multiple_of(8) && code.memory_size().size() == 8)
            .then(|| self.stack.len().checked_sub(1 + (depth / 8) as usize))?
    }

    fn move_stack(&mut self, base: Register, by: u64) {
        let by = by.cast_signed();
        if base != Register::RSP || by % 8 != 0 {
            self.stack.clear();
        } else if by < 0 {
            (0..(by / -8).min(DEEPEST as i64)).for_each(|_| self.push(None));
        } else {
            self.stack.truncate(self.stack.len().saturating_sub((by / 8) as usize));
        }
    }

    fn write(&mut self, code: &Instruction, value: Option<u64>) {
        self.set(code, 0, value);
    }

    fn set(&mut self, code: &Instruction, n: u32, value: Option<u64>) {
        match code.op_kind(n) {
            OpKind::Register => match register(code.op_register(n)) {
                Some(RSP) => self.stack.clear(),
                Some(index) => {
                    let half = is_half(code.op_register(n));
                    self.registers[index] = value.map(|v| if half { v & 0xffff_ffff } else { v });
                }
                None => self.forget(code),
            },
            OpKind::Memory => self.store(code, value),
            _ => {}
        }
    }

    /// A word, or a half of one, that is written to the known stack.
    fn store(&mut self, code: &Instruction, value: Option<u64>) {
        if code.memory_base() != Register::RSP {
            return;
        }
        let depth = code.memory_displacement64();
        let length = self.stack.len();
        let word = length.checked_sub(1 + (depth / 8) as usize).and_then(|i| self.stack.get_mut(i));
        let Some(word) = word.filter(|_| code.memory_index() == Register::None) else { return };
        *word = match (code.memory_size().size(), depth % 8, *word, value) {
            (8, 0, _, value) => value,
            (4, 0, Some(old), Some(new)) => Some(old & !0xffff_ffff | new & 0xffff_ffff),
            (4, 4, Some(old), Some(new)) => Some(old & 0xffff_ffff | new << 32),
            _ => None,
        };
    }

    /// An instruction that is not understood: what it may write is unknown.
    fn forget(&mut self, code: &Instruction) {
        let mut factory = InstructionInfoFactory::new();
        for used in factory.info(code).used_registers() {
            if matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
            {
                continue;
            }
            match register(used.register().full_register()) {
                Some(RSP) => self.stack.clear(),
                Some(index) => self.registers[index] = None,
                None => {}
            }
        }
        if code.op_count() > 0 && code.op0_kind() == OpKind::Memory {
            self.store(code, None);
        }
    }
}

fn same_registers(code: &Instruction) -> bool {
    code.op_count() == 2
        && code.op0_kind() == OpKind::Register
        && code.op1_kind() == OpKind::Register
        && code.op0_register() == code.op1_register()
}

/// The number of a 64-bit register or of its lower half.
fn register(name: Register) -> Option<usize> {
    (name.is_gpr64() || name.is_gpr32()).then(|| name.number())
}

fn is_half(name: Register) -> bool {
    name.is_gpr32()
}
