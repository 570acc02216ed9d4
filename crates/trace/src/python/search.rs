//! Looking for a structure in an interpreter's data, a piece at a time.

use std::ops::Range;

use plumb_target::{ReadMemory, memory};

/// What is read at once, in bytes.
const PIECE: usize = 1 << 20;
/// What lies across the end of a piece is read with the next: nothing that is looked for is longer.
const LONGEST: usize = 256;

/// The first that `find` knows among the words of a range; it is told where these begin.
pub(super) fn search<T>(
    memory: &impl ReadMemory,
    range: Range<u64>,
    mut find: impl FnMut(&[u64], u64) -> Option<T>,
) -> Option<T> {
    let mut bytes = vec![0; PIECE];
    (range.start.next_multiple_of(8)..range.end).step_by(PIECE - LONGEST).find_map(|at| {
        let length = (range.end - at).min(PIECE as u64) as usize;
        let got = memory.read_at(at, &mut bytes[..length]);
        find(&memory::words(&bytes[..got]), at)
    })
}
