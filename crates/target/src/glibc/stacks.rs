//! Stacks of threads, found from the threads' own control blocks.

use std::collections::HashSet;

use super::window::Data;
use crate::{Map, PAGE, Range, ReadMemory, maps};

/// The stack of one thread, live or kept for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackBlock {
    /// All of it, guard and thread-local storage included.
    pub range: Range,
    /// The thread's control block, at its upper end.
    pub control: u64,
}

/// `struct pthread` begins with a header of 704 bytes (`TCB_ALIGNMENT`, 24 words of padding or more);
/// its list link follows; where the stack is stands within the next 2 KiB on every version.
const LINK_OFFSETS: std::ops::Range<u64> = 0x200..0x400;
const BLOCK_FIELDS: std::ops::Range<usize> = 0x200 / 8..0xb00 / 8;
/// Larger than any stack, far smaller than the address space.
const LARGEST_STACK: u64 = 64 << 30;
const MAX_THREADS: usize = 1 << 20;

/// Follows the C library's own lists of stacks (used, given by the user, cached), which stand in the
/// writable data of the dynamic linker, of libpthread before 2.34, or of a static executable. A list
/// is known by its shape: a circle through control blocks that point at themselves.
pub fn stack_blocks(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Vec<StackBlock> {
    let mut found: Vec<StackBlock> = Vec::new();
    let mut known = HashSet::new();
    for range in data {
        let Some(data) = Data::read(memory, range) else { continue };
        for (index, pair) in data.words().windows(2).enumerate() {
            let head = data.address(index);
            let linked = pair[0] != head
                && pair[0] % 8 == 0
                && maps::find(maps, pair[0]).is_some_and(|map| map.permissions.write)
                && memory.u64_at(pair[0].wrapping_add(8)) == Some(head)
                && memory.u64_at(pair[1]) == Some(head);
            if linked {
                follow(memory, head, pair[0], &mut known, &mut found);
            }
        }
    }
    found
}

fn follow(
    memory: &impl ReadMemory,
    head: u64,
    first: u64,
    known: &mut HashSet<u64>,
    found: &mut Vec<StackBlock>,
) {
    let offset = LINK_OFFSETS.step_by(8).find(|offset| {
        first.checked_sub(*offset).is_some_and(|control| is_control(memory, control))
    });
    let Some(offset) = offset else { return };
    let mut link = first;
    while link != head && known.len() < MAX_THREADS && known.insert(link) {
        let Some(control) = link.checked_sub(offset) else { return };
        found.extend(block_of(memory, control));
        let Some(next) = memory.u64_at(link) else { return };
        link = next;
    }
}

/// A control block points at itself twice (`tcb` and `self`) in glibc, once in musl.
fn is_control(memory: &impl ReadMemory, control: u64) -> bool {
    control.is_multiple_of(16)
        && memory.u64_at(control) == Some(control)
        && memory.u64_at(control + 16) == Some(control)
}

/// The stack that a control block says it lies on: `base, size, guard` (glibc) or `base, size`
/// (musl), around the block itself.
fn block_of(memory: &impl ReadMemory, control: u64) -> Option<StackBlock> {
    let mut bytes = vec![0; BLOCK_FIELDS.end * 8];
    let got = memory.read_at(control, &mut bytes);
    let words = crate::memory::words(&bytes[..got]);
    let from = if is_control(memory, control) { BLOCK_FIELDS.start } else { 4 };
    let pairs = words.windows(2).skip(from);
    let range = pairs.map(|pair| (pair[0], pair[1])).find_map(|(base, size)| {
        let end = base.checked_add(size)?;
        let sound = base.is_multiple_of(PAGE)
            && base > 0
            && size.is_multiple_of(PAGE)
            && size <= LARGEST_STACK
            && (base..end).contains(&control)
            && end - control <= 64 * PAGE;
        sound.then_some(base..end)
    })?;
    Some(StackBlock { range, control })
}

/// Stacks found without lists, for C libraries that keep none we know: a control block at the upper
/// end of a private writable mapping that a guard precedes, or in which a thread's stack pointer
/// lies.
pub fn stacks_of_threads(
    memory: &impl ReadMemory,
    maps: &[Map],
    stack_pointers: &[u64],
) -> Vec<StackBlock> {
    let mut found = Vec::new();
    for (index, map) in maps.iter().enumerate() {
        let plain = map.is_anonymous() && map.permissions.write && map.name.is_empty();
        let guarded = index.checked_sub(1).is_some_and(|before| {
            let guard = &maps[before];
            guard.end == map.start && !guard.permissions.read && !guard.permissions.write
        });
        if !plain || !(guarded || stack_pointers.iter().any(|&sp| map.contains(sp))) {
            continue;
        }
        found.extend(control_at_end(memory, map).and_then(|control| block_of(memory, control)));
    }
    found
}

fn control_at_end(memory: &impl ReadMemory, map: &Map) -> Option<u64> {
    let length = (4 * PAGE).min(map.len());
    let start = map.end - length;
    let words = memory.words_at(start, length as usize / 8)?;
    let at = |index: usize| start + index as u64 * 8;
    let own = (0..words.len()).rev().filter(|&index| words[index] == at(index));
    own.map(at).find(|control| control.is_multiple_of(8) && block_of(memory, *control).is_some())
}
