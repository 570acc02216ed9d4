//! The records that the BPF programs send, as laid out in `bpf/layout.h`.
//!
//! They come from our own programs, but the stack and Python parts are bytes of the target: every
//! read here is bounded by the record.

use rustix::time::{ClockId, clock_gettime};

/// The time by the clock of the events, `CLOCK_MONOTONIC`, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A syscall returned.
    SyscallExit,
    /// A syscall that takes memory away has begun.
    SyscallEnter,
    /// A child process was made; `args[0]` is its pid.
    Fork,
    /// The process replaced its image.
    Exec,
    /// The process's first thread ended.
    Exit,
    /// A sampled page fault at `args[0]`.
    Fault,
    /// A sampled allocation of `args[0]` bytes at `ret`, in the place of what was at `args[1]`.
    Alloc,
    /// The target was stopped because it made probed text writable.
    Stopped,
    /// `ret` bytes were written to the file in memory behind descriptor `args[0]`.
    Write,
    /// Memory that a burst saw given was given back: its address in `args[0]`.
    Free,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Syscall number, x86-64.
    pub nr: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The syscall's arguments, or what `kind` says.
    pub args: [u64; 6],
    /// The syscall's result.
    pub ret: i64,
    /// The stack's name: a hash of its return addresses; 0 where it has none yet.
    pub stack: u64,
    /// The address space, that is, process image: changes at exec, shared by forked children.
    pub space: u32,
    /// Whether `stack` was hashed in the kernel.
    pub hashed: bool,
    /// Whether the event has a stack at all.
    pub has_stack: bool,
}

/// One Python frame as read from the interpreter: a code object's address and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawPythonFrame {
    /// Address of the code object, with the tag bits that newer interpreters keep there.
    pub code: u64,
    /// `f_lasti`, `prev_instr` or `instr_ptr`, by version.
    pub instr: u64,
    /// The frame's owner byte, where the version has one.
    pub owner: u64,
}

/// A copied stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawStack<'a> {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer; `bytes` start there, rounded down to [`FINE_PIECE`].
    pub sp: u64,
    /// Frame pointer register.
    pub bp: u64,
    /// Hash of the Python frames; 0 where there are none.
    pub python_hash: u64,
    /// Python frames, innermost first.
    pub python: Vec<RawPythonFrame>,
    /// Return addresses that probes have replaced: where on the stack, and what stood there; the
    /// innermost call first.
    pub returns: Vec<(u64, u64)>,
    /// The stack's bytes, upwards. Pages that were never touched read as zero.
    pub bytes: &'a [u8],
}

impl RawStack<'_> {
    /// The eight bytes at an address of the target's stack, where they were copied, as they are
    /// without probes.
    pub fn word(&self, address: u64) -> Option<u64> {
        // Of calls that share a place, as tail calls do, the outermost replaced the true address.
        if let Some((_, to)) = self.returns.iter().rev().find(|(at, _)| *at == address) {
            return Some(*to);
        }
        let at = address.checked_sub(self.sp & !(FINE_PIECE - 1))?;
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Bytes of a record without a stack: `sizeof(struct event)`.
pub const EVENT_BYTES: usize = 96;
const RETURNS_MAX: usize = 8;
const RETURNS: usize = 48;
const STACK_HEAD: usize = RETURNS + RETURNS_MAX * 16;
const PYTHON_MAX: usize = 96;
const PYTHON_BYTES: usize = 24;
const STACK_BYTES: usize = STACK_HEAD + PYTHON_MAX * PYTHON_BYTES;
/// What the copy of a stack is aligned to, in bytes.
pub const FINE_PIECE: u64 = 256;
/// Most bytes of stack in a record.
pub const STACK_MAX: usize = 32 * 1024;
/// The longest record: `sizeof(struct record)`.
pub const RECORD_MAX: usize = EVENT_BYTES + STACK_BYTES + STACK_MAX;

const WITH_STACK: u32 = 1;
const HASHED: u32 = 2;
const HAS_STACK: u32 = 4;

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Reads a record; `None` where it is not one.
pub fn parse(record: &[u8]) -> Option<(Event, Option<RawStack<'_>>)> {
    let mut args = [0; 6];
    for (i, arg) in args.iter_mut().enumerate() {
        *arg = word(record, 24 + i * 8)?;
    }
    let flags = half(record, 92)?;
    let event = Event {
        kind: kind(half(record, 0)?)?,
        nr: half(record, 4)?,
        tgid: half(record, 8)?,
        tid: half(record, 12)?,
        time_ns: word(record, 16)?,
        args,
        ret: word(record, 72)?.cast_signed(),
        stack: word(record, 80)?,
        space: half(record, 88)?,
        hashed: flags & HASHED != 0,
        has_stack: flags & HAS_STACK != 0,
    };
    if flags & WITH_STACK == 0 {
        return Some((event, None));
    }
    Some((event, Some(parse_stack(record.get(EVENT_BYTES..)?)?)))
}

fn parse_stack(bytes: &[u8]) -> Option<RawStack<'_>> {
    let frames = (half(bytes, 32)? as usize).min(PYTHON_MAX);
    let copied = (half(bytes, 36)? as usize).min(STACK_MAX);
    let hijacked = (half(bytes, 44)? as usize).min(RETURNS_MAX);
    let pair = |at: usize| Some((word(bytes, at)?, word(bytes, at + 8)?));
    let returns = (0..hijacked).map(|i| pair(RETURNS + i * 16)).collect::<Option<Vec<_>>>()?;
    let python = (0..frames)
        .map(|i| {
            let at = STACK_HEAD + i * PYTHON_BYTES;
            Some(RawPythonFrame {
                code: word(bytes, at)?,
                instr: word(bytes, at + 8)?,
                owner: word(bytes, at + 16)?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(RawStack {
        ip: word(bytes, 0)?,
        sp: word(bytes, 8)?,
        bp: word(bytes, 16)?,
        python_hash: word(bytes, 24)?,
        python,
        returns,
        bytes: bytes.get(STACK_BYTES..STACK_BYTES + copied)?,
    })
}

fn kind(n: u32) -> Option<Kind> {
    Some(match n {
        1 => Kind::SyscallExit,
        2 => Kind::SyscallEnter,
        3 => Kind::Fork,
        4 => Kind::Exec,
        5 => Kind::Exit,
        6 => Kind::Fault,
        7 => Kind::Alloc,
        8 => Kind::Stopped,
        9 => Kind::Write,
        10 => Kind::Free,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_return_address_is_read_as_it_was() {
        let (mut record, trampoline) =
            (vec![0; EVENT_BYTES + STACK_BYTES + 32], 0x7fff_ffff_e000u64);
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[7]);
        put(92, &WITH_STACK.to_le_bytes());
        let stack = EVENT_BYTES;
        put(stack + 8, &0x1000u64.to_le_bytes());
        put(stack + 36, &32u32.to_le_bytes());
        // A tail call: both calls share a place, and the inner one replaced the outer's trampoline.
        put(stack + 44, &2u32.to_le_bytes());
        for (i, to) in [trampoline, 0x40_1234].into_iter().enumerate() {
            put(stack + RETURNS + i * 16, &0x1008u64.to_le_bytes());
            put(stack + RETURNS + i * 16 + 8, &to.to_le_bytes());
        }
        put(stack + STACK_BYTES + 8, &trampoline.to_le_bytes());
        put(stack + STACK_BYTES + 16, &5u64.to_le_bytes());
        let (_, raw) = parse(&record).expect("a record");
        let raw = raw.expect("with a stack");
        assert_eq!(raw.word(0x1008), Some(0x40_1234));
        assert_eq!((raw.word(0x1010), raw.word(0x1020)), (Some(5), None));
    }
}
