//! Where an interpreter that was built with its allocator inlined takes blocks off its pools.
//!
//! `pymalloc_alloc` (`Objects/obmalloc.c`) takes the first free block of a pool, counts it and has the pool
//! point to the next: four instructions that compilers keep together, in every copy of it (171 in Debian's
//! CPython 3.11). Behind the first, the block's address is in a register. Functions that are cut short by
//! stripping have no name, but these need none.

use plumb_target::{Image, Memory, Process};

use crate::Error;
use crate::allocators::{Taking, checked};

/// A larger text is not the interpreter's.
const TEXT_MAX: u64 = 64 << 20;
/// Fewer are not those of an allocator that was inlined everywhere; and no more are probed.
const LEAST: usize = 16;
const MOST: usize = 512;

/// The places in an interpreter's text; none where they are too few.
///
/// # Errors
/// Text that differs from its file.
pub fn find(process: &Process, image: &Image) -> Result<Vec<Taking>, Error> {
    let memory = Memory::open(process)?;
    let mut found = Vec::new();
    for text in image.segments().filter(|s| s.execute).map(|s| s.range) {
        let length = text.end - text.start;
        if length > TEXT_MAX {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        memory.read(text.start, &mut bytes)?;
        for (at, register) in places(&bytes).into_iter().take(MOST) {
            let address = (text.start + at as u64).wrapping_sub(image.bias);
            let offset = checked(process, image, "Python's malloc", address)?;
            found.push(Taking { path: image.path_here(), offset, register });
        }
    }
    Ok(if found.len() < LEAST { Vec::new() } else { found })
}

/// Where in this code the second of the four instructions begins, and the register with the block.
fn places(code: &[u8]) -> Vec<(usize, u8)> {
    // The second: no prefix, or that of a high register, before `addl $1`.
    let counts = code.windows(3).enumerate().filter(|(_, w)| w[0] == 0x83 && w[2] == 1);
    counts.filter_map(|(i, _)| place(code, i)).collect()
}

/// The four instructions, of which the second has its operation code at `at`.
fn place(code: &[u8], at: usize) -> Option<(usize, u8)> {
    const FREE_BLOCK: u8 = 8;
    let has_prefix = code.get(at.checked_sub(1)?) == Some(&0x41);
    let count = if has_prefix { at - 1 } else { at };
    // addl $1,(pool)
    let pool = Operand::read(code.get(count..)?, 0x83, false)?;
    // mov 8(pool),block: longer by a byte where the pool is in r12
    let block = [4, 5].into_iter().find_map(|length| {
        let operand = Operand::read(code.get(count.checked_sub(length)?..)?, 0x8b, true)?;
        (operand.length == length && operand.base == pool.base).then_some(operand)
    })?;
    let counts = pool.register == 0 && pool.displacement == 0;
    let takes = block.displacement == FREE_BLOCK;
    // mov (block),next; mov next,8(pool)
    let rest = code.get(count + pool.length + 1..)?;
    let next = Operand::read(rest, 0x8b, true)?;
    let put = Operand::read(rest.get(next.length..)?, 0x89, true)?;
    let follows = next.base == block.register && next.displacement == 0;
    let puts =
        put.base == pool.base && put.displacement == FREE_BLOCK && put.register == next.register;
    (counts && takes && follows && puts).then_some((count, block.register))
}

/// An instruction's operand in memory, behind a register, and its other operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operand {
    base: u8,
    displacement: u8,
    register: u8,
    /// Up to the displacement, in bytes.
    length: usize,
}

impl Operand {
    /// Reads one with a displacement of a byte or none, and no index.
    fn read(code: &[u8], operation: u8, is_wide: bool) -> Option<Self> {
        const INDEXED: u8 = 4;
        const NO_INDEX: u8 = 0x24;
        const NONE: u8 = 5;
        let (prefix, rest) = match code {
            [prefix @ 0x40..=0x4f, rest @ ..] => (*prefix, rest),
            _ => (0x40, code),
        };
        let [op, mode, ..] = *rest else { return None };
        // REX: W for 64 bits, R and B for high registers; no index is used.
        let (base, register) = (mode & 7, mode >> 3 & 7);
        let index = usize::from(base == INDEXED);
        let is_plain = index == 0 || rest.get(2) == Some(&NO_INDEX);
        if op != operation || (prefix & 8 != 0) != is_wide || prefix & 2 != 0 || !is_plain {
            return None;
        }
        let (displacement, bytes) = match mode >> 6 {
            0 if base != NONE => (0, 2 + index),
            1 => (*rest.get(2 + index)?, 3 + index),
            _ => return None,
        };
        let (base, register) = (base | (prefix & 1) << 3, register | (prefix & 4) << 1);
        let length = bytes + code.len() - rest.len();
        Some(Self { base, displacement, register, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // mov 0x8(%rdx),%rax; addl $0x1,(%rdx); mov (%rax),%rcx; mov %rcx,0x8(%rdx)
    const LOW: [u8; 14] =
        [0x48, 0x8b, 0x42, 0x08, 0x83, 0x02, 0x01, 0x48, 0x8b, 0x08, 0x48, 0x89, 0x4a, 0x08];
    // mov 0x8(%rax),%r13; addl $0x1,(%rax); mov 0x0(%r13),%rdx; mov %rdx,0x8(%rax)
    const HIGH: [u8; 15] =
        [0x4c, 0x8b, 0x68, 0x08, 0x83, 0x00, 0x01, 0x49, 0x8b, 0x55, 0x00, 0x48, 0x89, 0x50, 0x08];
    // mov 0x8(%r8),%rbp; addl $0x1,(%r8); mov 0x0(%rbp),%r9; mov %r9,0x8(%r8)
    const HIGH_POOL: [u8; 16] = [
        0x49, 0x8b, 0x68, 0x08, 0x41, 0x83, 0x00, 0x01, 0x4c, 0x8b, 0x4d, 0x00, 0x4d, 0x89, 0x48,
        0x08,
    ];

    // mov 0x8(%rax),%r12; addl $0x1,(%rax); mov (%r12),%rdx; mov %rdx,0x8(%rax)
    const TWELVE: [u8; 15] =
        [0x4c, 0x8b, 0x60, 0x08, 0x83, 0x00, 0x01, 0x49, 0x8b, 0x14, 0x24, 0x48, 0x89, 0x50, 0x08];

    #[test]
    fn a_block_is_taken_by_four_instructions() {
        let code =
            [&[0x90; 5], LOW.as_slice(), &[0xc3], &HIGH, &[0xc3; 3], &HIGH_POOL, &TWELVE].concat();
        assert_eq!(places(&code), [(9, 0), (24, 13), (42, 5), (58, 12)]);
        assert_eq!(places(&LOW), [(4, 0)], "also at the end of all text");
        assert_eq!(places(&LOW[..13]), []);
    }

    /// As many as there are calls of what takes a pool when none is left, by a disassembler.
    #[test]
    fn all_copies_of_an_interpreter_are_found() {
        let Ok(bytes) = std::fs::read("/usr/bin/python3.11") else { return };
        let found = places(&bytes);
        assert!(found.is_empty() || found.len() >= 100, "{}", found.len());
    }

    #[test]
    fn another_count_and_another_list_are_no_pools() {
        for (at, byte) in [(3, 0x10), (5, 0x03), (6, 2), (9, 0x0b), (12, 0x4b), (13, 0x10)] {
            let mut code = LOW;
            code[at] = byte;
            assert_eq!(places(&code), [], "{at}");
        }
    }
}
