//! Where patched x86-64 code leads.
//!
//! Hooks come in few shapes: a near jump, a jump through a slot, a constant in a register and a
//! jump to it, a push and a return. Each is decoded by its bytes (Intel's manual, volume 2); other
//! code is not understood, and is not guessed at.

use plumb_target::ReadMemory;

/// One jump, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where it leads.
    pub target: u64,
    /// How many bytes it takes from where decoding began.
    pub length: usize,
}

/// The longest shape, with the landing pad and padding before it.
pub(crate) const LONGEST: usize = 48;

/// Decodes the jump with which `code` (which is at `address`) begins, past landing pads and
/// no-operations. `memory` is read for a jump through a slot.
pub fn decode(memory: &impl ReadMemory, address: u64, code: &[u8]) -> Option<Step> {
    let skipped = padding(code);
    let step = jump(memory, address.wrapping_add(skipped as u64), &code[skipped..])?;
    Some(Step { length: step.length + skipped, ..step })
}

/// The first jump, at any place in `code`, whose target `accepts`: for trampolines, which save
/// registers first.
pub(crate) fn search(
    memory: &impl ReadMemory,
    address: u64,
    code: &[u8],
    accepts: impl Fn(u64) -> bool,
) -> Option<Step> {
    (0..code.len()).find_map(|at| {
        let step = jump(memory, address.wrapping_add(at as u64), &code[at..])?;
        accepts(step.target).then_some(Step { length: step.length + at, ..step })
    })
}

/// How many bytes of `endbr64` and of no-operations come first.
fn padding(code: &[u8]) -> usize {
    const NOTHING: [&[u8]; 5] = [
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x90],
        &[0x66, 0x90],
        &[0x0f, 0x1f, 0x00],
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    ];
    let mut at = 0;
    while let Some(nothing) = NOTHING.iter().find(|n| code[at..].starts_with(n)) {
        at += nothing.len();
    }
    at
}

fn jump(memory: &impl ReadMemory, address: u64, code: &[u8]) -> Option<Step> {
    let after = |length: usize| address.wrapping_add(length as u64);
    let near = |at: usize| Some(after(at + 4).wrapping_add_signed(i64::from(signed32(code, at)?)));
    let slot = |at: usize| memory.u64_at(near(at)?);
    let step = |target: Option<u64>, length| Some(Step { target: target?, length });
    match *code {
        // jmp rel32; call rel32 (a call is how tracing frameworks enter).
        [0xe9 | 0xe8, ..] => step(near(1), 5),
        [0xeb, by, ..] => step(Some(after(2).wrapping_add_signed(by.cast_signed().into())), 2),
        // jmp [rip+disp32], also with the prefixes bnd and notrack, and as a tail of `call`.
        [0xff, 0x25 | 0x15, ..] => step(slot(2), 6),
        [0xf2 | 0x3e, 0xff, 0x25, ..] => step(slot(3), 7),
        // push [rip+disp32]; ret.
        [0xff, 0x35, _, _, _, _, 0xc3, ..] => step(slot(2), 7),
        // push imm32; then the upper half by mov dword [rsp+4], imm32; ret.
        [0x68, ..] => pushed(code),
        // A constant in a register, 64 bits or 32 that are extended by their sign or by zeros.
        [0x48 | 0x49, 0xb8..=0xbf, ..] => {
            let value = u64::from_le_bytes(*code.get(2..)?.first_chunk()?);
            through(code, 10, register(code[0] & 1, code[1] & 7), value)
        }
        [0x48 | 0x49, 0xc7, mode @ 0xc0..=0xc7, ..] => {
            let value = i64::from(signed32(code, 3)?).cast_unsigned();
            through(code, 7, register(code[0] & 1, mode & 7), value)
        }
        [0x41, 0xb8..=0xbf, ..] => {
            let value = u64::from(signed32(code, 2)?.cast_unsigned());
            through(code, 6, register(1, code[1] & 7), value)
        }
        [0xb8..=0xbf, ..] => {
            let value = u64::from(signed32(code, 1)?.cast_unsigned());
            through(code, 5, register(0, code[0] & 7), value)
        }
        // mov reg, [rip+disp32].
        [0x48 | 0x4c, 0x8b, mode, ..] if mode & 0xc7 == 0x05 => {
            through(code, 7, register(code[0] >> 2 & 1, mode >> 3 & 7), slot(3)?)
        }
        _ => None,
    }
}

fn signed32(code: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(*code.get(at..)?.first_chunk()?))
}

fn register(extended: u8, low: u8) -> u8 {
    extended << 3 | low
}

/// `code` from `at` on jumps to, calls, or pushes and returns to `register`, which holds `value`.
fn through(code: &[u8], at: usize, register: u8, value: u64) -> Option<Step> {
    let (high, low) = (register >> 3 == 1, register & 7);
    let rest = code.get(at..)?;
    let (rest, prefix) = match *rest {
        [0x41, ref rest @ ..] if high => (rest, 1),
        _ if high => return None,
        _ => (rest, 0),
    };
    let length = match *rest {
        [0xff, mode, ..] if mode == 0xe0 | low || mode == 0xd0 | low => 2,
        [push, 0xc3, ..] if push == 0x50 | low => 2,
        _ => return None,
    };
    Some(Step { target: value, length: at + prefix + length })
}

fn pushed(code: &[u8]) -> Option<Step> {
    let low = signed32(code, 1)?;
    match *code.get(5..)? {
        [0xc3, ..] => Some(Step { target: i64::from(low).cast_unsigned(), length: 6 }),
        [0xc7, 0x44, 0x24, 0x04, _, _, _, _, 0xc3, ..] => {
            let high = signed32(code, 9)?;
            let target = u64::from(high.cast_unsigned()) << 32 | u64::from(low.cast_unsigned());
            Some(Step { target, length: 14 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_target::memory::Pieces;

    const AT: u64 = 0x7f00_0000_1000;
    const TO: u64 = 0x7f11_2233_4455;

    fn target(code: &[u8]) -> Option<(u64, usize)> {
        let mut memory = Pieces::default();
        memory.put(AT + 0x100, TO.to_le_bytes().to_vec());
        decode(&memory, AT, code).map(|step| (step.target, step.length))
    }

    fn with_constant(before: &[u8], after: &[u8]) -> Vec<u8> {
        [before, TO.to_le_bytes().as_slice(), after].concat()
    }

    #[test]
    fn every_shape_is_followed() {
        let to_slot = |length: u8| [0x100 - u32::from(length)].map(u32::to_le_bytes).concat();
        assert_eq!(target(&[0xe9, 0xfb, 0xff, 0, 0]), Some((AT + 0x1_0000, 5)));
        assert_eq!(target(&[0xe9, 0xf6, 0xff, 0xff, 0xff]), Some((AT - 5, 5)));
        assert_eq!(target(&[0xeb, 0xf9]), Some((AT - 5, 2)));
        assert_eq!(target(&[&[0xff, 0x25][..], &to_slot(6)].concat()), Some((TO, 6)));
        assert_eq!(target(&[&[0xf2, 0xff, 0x25][..], &to_slot(7)].concat()), Some((TO, 7)));
        assert_eq!(target(&[&[0xff, 0x35][..], &to_slot(6), &[0xc3]].concat()), Some((TO, 7)));
        assert_eq!(target(&with_constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe3])), Some((TO, 13)));
        assert_eq!(target(&with_constant(&[0x48, 0xb8], &[0xff, 0xe0])), Some((TO, 12)));
        assert_eq!(target(&with_constant(&[0x48, 0xb8], &[0x50, 0xc3])), Some((TO, 12)));
        assert_eq!(
            target(&[0x68, 0x55, 0x44, 0x33, 0x22, 0xc7, 0x44, 0x24, 4, 0x11, 0x7f, 0, 0, 0xc3]),
            Some((0x7f11_2233_4455, 14))
        );
        let landing = [&[0xf3, 0x0f, 0x1e, 0xfa, 0x90][..], &[0xe9, 0, 0, 0, 0]].concat();
        assert_eq!(target(&landing), Some((AT + 10, 10)));
        assert_eq!(
            target(&[&[0x4c, 0x8b, 0x1d][..], &to_slot(7), &[0x41, 0xff, 0xe3]].concat()),
            Some((TO, 10))
        );
    }

    #[test]
    fn other_code_is_not_guessed_at() {
        // xor eax, eax; ret — the constant goes to another register than the jump — cut short.
        assert_eq!(target(&[0x31, 0xc0, 0xc3]), None);
        assert_eq!(target(&with_constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe2])), None);
        assert_eq!(target(&with_constant(&[0x49, 0xbb], &[0xff, 0xe3])), None);
        assert_eq!(target(&[0xe9, 0, 0]), None);
        assert_eq!(target(&[]), None);
    }

    /// Every start of an instruction that is looked at, cut at every length, over bytes of a simple
    /// generator: decoding ends, stays within the code, and never panics.
    #[test]
    fn any_bytes_are_decoded_within_their_length() {
        let mut state = 1u64;
        let mut memory = Pieces::default();
        memory.put(0, vec![0xff; 64]);
        for first in 0..=255u8 {
            for round in 0..64 {
                let mut code = [first; LONGEST];
                for byte in &mut code[1..] {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (state >> 56) as u8;
                }
                let code = &code[..1 + round % LONGEST];
                for address in [0, AT, u64::MAX] {
                    let step = decode(&memory, address, code);
                    assert!(step.is_none_or(|step| step.length <= code.len()), "{code:x?}");
                    search(&memory, address, code, |_| false);
                }
            }
        }
    }

    #[test]
    fn a_trampoline_is_searched() {
        let code = [&[0x50, 0x51, 0x52][..], &with_constant(&[0x49, 0xbb], &[0x41, 0xff, 0xe3])];
        let found = search(&Pieces::default(), AT, &code.concat(), |target| target == TO);
        assert_eq!(found, Some(Step { target: TO, length: 16 }));
    }
}
