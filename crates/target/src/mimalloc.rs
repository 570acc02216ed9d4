//! mimalloc's segments, read from outside, without symbols.
//!
//! mimalloc 1 and 2 mark each segment with a cookie: its own address combined with a key that stands
//! in the library's data (`_mi_ptr_cookie` of segment.c). Segments are aligned to 32 MiB (2.0), 64 or
//! 4 MiB; a mapped range at such an address whose cookie gives a key that the data holds is a segment.
//! 2.0.9 as Debian builds it is run here; other versions are untested, and version 3 has no cookies.
//! Live and freed blocks are not told apart: bytes are `heap`.

use std::collections::HashSet;

use crate::{Map, Range, ReadMemory};

/// Alignments of segments: multiples of the smallest are all tried.
const SMALLEST: u64 = 4 << 20;
/// The cookie stands in the segment's header, before its slices or pages.
const HEADER_WORDS: usize = 128;
/// A slice is 64 KiB; the number of slices of a segment follows the cookie.
const SLICE: u64 = 64 << 10;
const PIECE: usize = 1 << 20;

/// Finds the segments from the writable data of the library or executable that holds mimalloc, in
/// order of address.
pub fn find(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Vec<Range> {
    let keys = keys(memory, data);
    let mut found: Vec<Range> = Vec::new();
    let writable = maps.iter().filter(|map| map.is_anonymous() && map.permissions.write);
    for map in writable {
        let mut at = map.start.next_multiple_of(SMALLEST);
        while at < map.end {
            let size = segment(memory, at, &keys);
            if let Some(size) = size {
                // Its end may be reserved only, or given back.
                found.push(at..at.saturating_add(size).min(end_of_run(maps, at)));
            }
            let step = size.unwrap_or(SMALLEST).next_multiple_of(SMALLEST).max(SMALLEST);
            let Some(next) = at.checked_add(step) else { break };
            at = next;
        }
    }
    found
}

/// Odd and wide words of the data: keys are random.
fn keys(memory: &impl ReadMemory, data: &[Range]) -> HashSet<u64> {
    let mut keys = HashSet::new();
    let mut bytes = vec![0; PIECE];
    for range in data {
        for at in (range.start.next_multiple_of(8)..range.end).step_by(PIECE) {
            let length = (range.end - at).min(PIECE as u64) as usize;
            let got = memory.read_at(at, &mut bytes[..length]);
            let words = crate::memory::words(&bytes[..got]).into_iter();
            keys.extend(words.filter(|word| word >> 48 != 0 && word.leading_ones() < 16));
        }
    }
    keys
}

/// The size of the segment at `at`, if there is one.
fn segment(memory: &impl ReadMemory, at: u64, keys: &HashSet<u64>) -> Option<u64> {
    let words = memory.words_at(at, HEADER_WORDS)?;
    let cookie = words.iter().position(|word| keys.contains(&(word ^ at)))?;
    let slices = words.get(cookie + 1)?;
    Some(if (1..1 << 30).contains(slices) { slices * SLICE } else { SMALLEST })
}

/// Where the mappings that touch each other from `address` on end.
fn end_of_run(maps: &[Map], address: u64) -> u64 {
    let from = maps.partition_point(|map| map.end <= address);
    let mut end = address;
    for map in &maps[from..] {
        if (map.start > end && end > address) || !map.is_anonymous() {
            break;
        }
        end = map.end;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps;
    use crate::memory::Pieces;

    #[test]
    fn a_cookie_that_fits_the_key_is_a_segment() {
        let (key, at) = (0x1234_5678_9abc_def1_u64, 0x7f00_0200_0000_u64);
        let mut header = vec![0u64; HEADER_WORDS];
        header[20] = key ^ at;
        header[21] = 512;
        let mut memory = Pieces::default();
        memory.put(at, header.iter().flat_map(|word| word.to_le_bytes()).collect());
        memory.put(0x1000, key.to_le_bytes().to_vec());
        let text = format!("{at:x}-{:x} rw-p 0 00:00 0 \n", at + (64 << 20));
        let maps = maps::parse(text.as_bytes()).unwrap();
        let found = find(&memory, std::slice::from_ref(&(0x1000..0x1008)), &maps);
        assert_eq!(found.first(), Some(&(at..at + (32 << 20))));
        assert_eq!(found.len(), 1);
        let none = find(&memory, std::slice::from_ref(&(0x2000..0x2008)), &maps);
        assert!(none.is_empty());
    }
}
