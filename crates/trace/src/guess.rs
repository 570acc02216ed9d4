//! Steps from a frame to its caller where no unwind table leads there.
//!
//! Pure. musl and hand-written assembly come without tables, and the frame pointer is then whatever the
//! caller keeps in it: the stack is searched for an address that a call which can have led here has left.
//! A signal's frame holds the interrupted registers, whatever its table says of them.

use plumb_target::ReadMemory;

use crate::events::RawStack;

/// The registers that a step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
}

/// Words that are searched for a return address: functions without tables are small.
const WORDS: u64 = 160;
/// A function without a table is no longer than this, in bytes.
const FUNCTION_MAX: u64 = 32 << 10;

/// What a signal interrupted, where the frame at `sp` is the one that the kernel made for its handler:
/// `struct ucontext` of x86-64, marked by the code segment of user code in it.
pub fn interrupted(stack: &RawStack<'_>, sp: u64) -> Option<Registers> {
    const USER_CODE: u64 = 0x33;
    const FLAGS_MAX: u64 = 0xf;
    let word = |offset: u64| stack.word(sp.checked_add(offset)?);
    let is_frame = word(0)? <= FLAGS_MAX && word(184)? & 0xffff == USER_CODE;
    let found = Registers { ip: word(168)?, sp: word(160)?, bp: word(120)? };
    (is_frame && found.ip > 0xffff && found.sp > 0xffff).then_some(found)
}

/// Where the return address of the function at `pc` lies on the stack from `sp` on.
pub fn return_slot(
    stack: &RawStack<'_>,
    pc: u64,
    sp: u64,
    knows: impl Fn(u64) -> bool,
    same_module: impl Fn(u64) -> bool,
    code: &impl ReadMemory,
) -> Option<u64> {
    (0..WORDS).map_while(|i| sp.checked_add(i * 8)).find(|at| {
        let Some(to) = stack.word(*at).filter(|to| knows(*to)) else { return false };
        match call_before(to, code) {
            Some(Call::To(target)) if same_module(target) => {
                target <= pc && pc - target < FUNCTION_MAX
            }
            // By way of a linkage table.
            Some(Call::To(target)) => knows(target),
            Some(Call::Indirect) => true,
            None => false,
        }
    })
}

/// A call instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To an address.
    To(u64),
    /// To what a register or memory held.
    Indirect,
}

/// The call that ends at `to`, if one does.
pub fn call_before(to: u64, code: &impl ReadMemory) -> Option<Call> {
    let mut bytes = [0; 8];
    code.read_exact(to.checked_sub(8)?, &mut bytes)?;
    if bytes[3] == 0xe8 {
        let by = i32::from_le_bytes(*bytes.last_chunk()?);
        return Some(Call::To(to.wrapping_add_signed(i64::from(by))));
    }
    // `ff /2`, by the length that its operand has.
    let is_call = |at: usize, length: usize| {
        let operand = bytes[at + 1];
        let (mode, base) = (operand >> 6, operand & 7);
        let displacement = match (mode, base) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
        let index = usize::from(mode != 3 && base == 4);
        bytes[at] == 0xff && operand >> 3 & 7 == 2 && length == 2 + index + displacement
    };
    (2..=7).any(|length| is_call(8 - length, length)).then_some(Call::Indirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code in which a call of each form ends at a multiple of 16.
    struct Code;

    const TEXT: u64 = 0x40_0000;
    const CALLS: [&[u8]; 6] = [
        &[0xe8, 0xf0, 0xff, 0xff, 0xff],
        &[0xff, 0xd0],
        &[0x41, 0xff, 0x54, 0x24, 0x08],
        &[0xff, 0x15, 1, 2, 3, 4],
        &[0x90, 0x90],
        &[0xff, 0x94, 0x24, 1, 0, 0, 0],
    ];

    impl ReadMemory for Code {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            for (at, byte) in (address..).zip(out.iter_mut()) {
                let end = at / 16 * 16 + 16;
                let call = CALLS.get((end - TEXT) as usize / 16 - 1);
                let from_end = (end - at) as usize;
                *byte =
                    call.and_then(|c| c.len().checked_sub(from_end).map(|i| c[i])).unwrap_or(0x90);
            }
            out.len()
        }
    }

    fn stack_of(bytes: &[u8]) -> RawStack<'_> {
        RawStack {
            ip: 0,
            sp: 0x1000,
            bp: 0,
            python_hash: 0,
            python: Vec::new(),
            returns: Vec::new(),
            bytes,
        }
    }

    #[test]
    fn calls_are_recognised_by_their_end() {
        let found: Vec<_> = (1..=6).map(|n| call_before(TEXT + n * 16, &Code)).collect();
        let indirect = Some(Call::Indirect);
        let direct = Some(Call::To(TEXT));
        assert_eq!(found, [direct, indirect, indirect, indirect, None, indirect]);
    }

    #[test]
    fn the_nearest_call_that_can_have_led_here_is_the_callers() {
        let words = [7, TEXT + 80, TEXT + 16, TEXT + 32];
        let bytes: Vec<u8> = words.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
        let stack = stack_of(&bytes);
        let knows = |at: u64| (TEXT..TEXT + 4096).contains(&at);
        let slot = |pc| return_slot(&stack, pc, 0x1000, knows, knows, &Code);
        assert_eq!(slot(TEXT + 4), Some(0x1010));
        // The direct call leads to another function than this.
        assert_eq!(slot(TEXT - 4), Some(0x1018));
    }

    #[test]
    fn a_signals_frame_gives_what_it_interrupted() {
        let mut words = [0u64; 32];
        (words[15], words[20], words[21], words[23]) = (5, 0x7000_0000, TEXT, 0x2b_0000_0033);
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut stack = stack_of(&bytes);
        let found = Registers { ip: TEXT, sp: 0x7000_0000, bp: 5 };
        assert_eq!(interrupted(&stack, 0x1000), Some(found));
        stack.bytes = &bytes[8..];
        assert_eq!(interrupted(&stack, 0x1000), None);
    }
}
