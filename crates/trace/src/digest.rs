//! Numbers that an object holds, or what it holds holds: by these it is known again.
//!
//! Where it lies, and what it points to, says little: what is made in turns is made of the same blocks in the
//! same order, and points to the same addresses. What numbers and texts say does not come in turns.

use std::collections::HashMap;

use plumb_target::ReadMemory;

use crate::marks::{MARK_WORDS, Mark};

const BYTES: usize = MARK_WORDS * 8;
/// How far what it points to is followed: a dictionary's values lie behind its table, a list's behind its
/// array.
const LEVELS: usize = 2;
/// Places read of one object at each level.
const PLACES: usize = 8;
/// Numbers kept of one object.
const NUMBERS: usize = 24;

/// The numbers of each of these objects, as far as they can be read now.
pub fn numbers(memory: &impl ReadMemory, marks: &[Mark]) -> Vec<Vec<u64>> {
    let mut all: Vec<Vec<u64>> = vec![Vec::new(); marks.len()];
    let mut places: Vec<(usize, u64)> = Vec::new();
    for (i, mark) in marks.iter().enumerate() {
        take(i, mark.contents(), &mut all[i], &mut places);
    }
    for level in 1..=LEVELS {
        let addresses: Vec<u64> = places.iter().map(|(_, address)| *address).collect();
        let mut bytes = vec![0; addresses.len() * BYTES];
        memory.read_scattered(&addresses, BYTES, &mut bytes);
        let owners = std::mem::take(&mut places);
        for ((i, _), piece) in owners.into_iter().zip(bytes.chunks_exact(BYTES)) {
            // The first word is a count of references, which changes.
            let words = plumb_target::memory::words(piece).into_iter().skip(1);
            take(i, words, &mut all[i], &mut places);
        }
        if level == LEVELS {
            places.clear();
        }
    }
    all
}

/// Sorts words into numbers, and places to read, of which one object has so many.
fn take(
    owner: usize,
    words: impl Iterator<Item = u64>,
    numbers: &mut Vec<u64>,
    places: &mut Vec<(usize, u64)>,
) {
    for word in words.filter(|word| *word != 0) {
        // Low ones are mostly numbers: there the heap of a program lies that is loaded where it was linked.
        let is_place = match word {
            0..0x1_0000 | 0x8000_0000_0000.. => false,
            0x1_0000..0x100_0000_0000 => word.is_multiple_of(16),
            _ => word.is_multiple_of(8),
        };
        if !is_place && numbers.len() < NUMBERS && !numbers.contains(&word) {
            numbers.push(word);
        }
        let own = places.iter().rev().take_while(|(i, _)| *i == owner).count();
        if is_place && own < PLACES {
            places.push((owner, word));
        }
    }
}

/// How many objects were seen with each number.
#[derive(Debug, Default)]
pub struct Common(HashMap<u64, u32>);

impl Common {
    const MOST: usize = 1 << 18;

    /// Another object, with these.
    pub fn add(&mut self, numbers: &[u64]) {
        if self.0.len() > Self::MOST {
            self.0.clear();
        }
        numbers.iter().for_each(|number| *self.0.entry(*number).or_default() += 1);
    }

    /// Whether one of these is among those, and no other object was seen with it.
    pub fn tells(&self, these: &[u64], those: &[u64]) -> bool {
        these.iter().any(|n| those.contains(n) && self.0.get(n).is_none_or(|times| *times < 2))
    }
}

#[cfg(test)]
mod tests {
    use plumb_target::memory::Pieces;

    use super::*;

    fn put(memory: &mut Pieces, address: u64, words: [u64; MARK_WORDS]) {
        memory.put(address, words.iter().flat_map(|w| w.to_le_bytes()).collect());
    }

    #[test]
    fn what_lies_behind_two_links_is_found() {
        let (mut memory, at) = (Pieces::default(), 0x7f00_0000_0000u64);
        put(&mut memory, at, [3, at + 512, 1, 2, 0, 0, 0, 0]);
        put(&mut memory, at + 512, [9, 0, 123_464, at + 1024, 0, 0, 0, 0]);
        put(&mut memory, at + 1024, [9, 0, 654_321, 0, 0, 0, 0, 0]);
        let words = [at, at, 1, at + 4096, at, 77, 0, 0];
        let mark = Mark { block: (at + 64, 64), words, head: Some(2) };
        assert_eq!(numbers(&memory, &[mark]), [vec![77, 1, 2, 123_464]]);
    }

    #[test]
    fn a_number_that_others_have_tells_nothing() {
        let mut common = Common::default();
        common.add(&[1, 77]);
        common.add(&[1, 78]);
        assert!(common.tells(&[1, 77], &[1, 77]) && !common.tells(&[1, 77], &[1, 78]));
    }
}
