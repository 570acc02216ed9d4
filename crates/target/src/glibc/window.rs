//! Reading words one after the other without a system call for each.

use crate::{PAGE, Range, ReadMemory};

/// The words of a writable data segment, at their addresses.
pub(super) struct Data {
    start: u64,
    words: Vec<u64>,
}

/// The C library's data is kilobytes; a static executable's may be anything.
const MAX_DATA: u64 = 64 << 20;

impl Data {
    pub fn read(memory: &impl ReadMemory, range: &Range) -> Option<Self> {
        let start = range.start.next_multiple_of(8);
        let length = range.end.checked_sub(start)?.min(MAX_DATA) as usize;
        let mut bytes = vec![0; length];
        let got = memory.read_at(start, &mut bytes);
        let words = crate::memory::words(&bytes[..got]);
        (!words.is_empty()).then_some(Self { start, words })
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn address(&self, index: usize) -> u64 {
        self.start + index as u64 * 8
    }

    pub fn range(&self) -> Range {
        self.start..self.address(self.words.len())
    }

    pub fn half(&self, byte: usize) -> Option<u32> {
        let word = self.words.get(byte / 8)?;
        Some((word >> (byte % 8 * 8)) as u32)
    }

    pub fn word(&self, byte: usize) -> Option<u64> {
        self.words.get(byte / 8).copied()
    }
}

/// A window that moves up through memory: long when words follow each other, short after a jump, so
/// that the insides of large chunks are not read.
pub(super) struct Window<'a, M> {
    memory: &'a M,
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    reach: usize,
    end: u64,
}

const SHORTEST: usize = PAGE as usize;
const LONGEST: usize = 256 << 10;

impl<'a, M: ReadMemory> Window<'a, M> {
    /// Reads never go past `end`.
    pub fn new(memory: &'a M, end: u64) -> Self {
        let buffer = vec![0; LONGEST];
        Self { memory, buffer, start: 0, filled: 0, reach: SHORTEST, end }
    }

    /// Forgets what was read: the target may have changed it.
    pub fn forget(&mut self) {
        self.filled = 0;
    }

    pub fn u64(&mut self, address: u64) -> Option<u64> {
        let inside = |w: &Self| {
            let at = usize::try_from(address.checked_sub(w.start)?).ok()?;
            let bytes = w.buffer[..w.filled].get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(*bytes.first_chunk()?))
        };
        if let Some(word) = inside(self) {
            return Some(word);
        }
        let past = address.wrapping_sub(self.start + self.filled as u64);
        let follows = self.filled > 0 && past < PAGE;
        self.reach = if follows { (self.reach * 2).min(LONGEST) } else { SHORTEST };
        self.start = address / 8 * 8;
        // To the end of a page: the next one may be unmapped or never touched.
        let stop = (self.start + self.reach as u64) / PAGE * PAGE;
        let stop = stop.max(self.start + 8).min(self.end.max(self.start + 8));
        let length = ((stop - self.start) as usize).min(LONGEST);
        self.filled = self.memory.read_at(self.start, &mut self.buffer[..length]);
        inside(self)
    }
}
