//! mimalloc's segments and arenas, read from outside, without symbols.
//!
//! mimalloc 1 and 2 mark each segment with a cookie: its own address combined with a key that stands
//! in the library's data (`_mi_ptr_cookie` of segment.c). Segments are aligned to 32 MiB (2.0), 64 or
//! 4 MiB; a mapped range at such an address whose cookie gives a key that the data holds is a segment.
//!
//! mimalloc 3 has arenas instead: the sub-process in the library's data lists them, and each begins
//! with where that is, its place in the list and its slices (`mi_arena_t` of types.h). What version 3
//! takes from the system outside arenas is not found.
//!
//! What of them is live the lists of each page tell ([`live`]).
//! 2.0.9 as Debian builds it and 3.3.2 as the `mimalloc` crate does are run here, 2.3 was by hand; other
//! versions are untested.

mod live;

use std::collections::HashSet;
use std::time::Instant;

use crate::{Map, Range, ReadMemory, Residency, maps};

/// Alignments of segments: multiples of the smallest are all tried.
const SMALLEST: u64 = 4 << 20;
/// The cookie stands in the segment's header, before its slices or pages.
const HEADER_WORDS: usize = 128;
/// A slice is 64 KiB; the number of slices of a segment follows the cookie, since 2.1.8 after two links.
const SLICE: u64 = 64 << 10;
const AFTER_COOKIE: usize = 3;
/// A library's data is small, an executable's may be anything.
const MOST_DATA: u64 = 64 << 20;
const PIECE: usize = 1 << 20;

/// What mimalloc owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments or arenas, in order of address.
    pub ranges: Vec<Range>,
    /// Of segments, where each tells its number of slices, if it does.
    slices_at: Vec<Option<u64>>,
    is_arenas: bool,
}

/// Finds the segments and arenas from the writable data of the library or executable that holds
/// mimalloc.
pub fn find(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Found {
    let mut ranges = arenas(memory, data, maps);
    if ranges.is_empty() {
        let (ranges, slices_at) = segments(memory, data, maps).into_iter().unzip();
        return Found { ranges, slices_at, is_arenas: false };
    }
    ranges.sort_unstable_by_key(|range| range.start);
    Found { ranges, slices_at: Vec::new(), is_arenas: true }
}

impl Found {
    /// Resident bytes of live blocks in each of the ranges; `None` where time is up, or where what pages
    /// say does not add up: an untested version, or free lists that are encoded.
    pub fn in_use(
        &self,
        memory: &impl ReadMemory,
        residency: &Residency,
        until: Instant,
    ) -> Option<Vec<u64>> {
        live::in_use(memory, self, residency, until)
    }
}

/// `MI_MAX_ARENAS`.
const MOST_ARENAS: u64 = 160;
/// An arena begins with where its memory is from (3 words), its sub-process, its index, its slices.
const ARENA_WORDS: usize = 8;
/// The sub-process begins so many bytes before its count of arenas at most.
const BEFORE_COUNT: u64 = 64;

/// The arenas of version 3: a count in the data, and as many pointers to headers that point back.
fn arenas(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Vec<Range> {
    for range in data {
        let start = range.start.next_multiple_of(8);
        let length = range.end.saturating_sub(start).min(MOST_DATA) as usize;
        let mut bytes = vec![0; length];
        let got = memory.read_at(start, &mut bytes);
        let words = crate::memory::words(&bytes[..got]);
        for (index, pair) in words.windows(2).enumerate() {
            let (count, first) = (pair[0], pair[1]);
            if !(1..=MOST_ARENAS).contains(&count) || first == 0 || !first.is_multiple_of(SLICE) {
                continue;
            }
            let list = words.get(index + 1..index + 1 + count as usize).unwrap_or_default();
            let at = start + index as u64 * 8;
            let arenas = (0..).zip(list).map(|(place, &address)| {
                arena(memory, address, at, place).filter(|_| maps::find(maps, address).is_some())
            });
            if let Some(found) = arenas.collect::<Option<Vec<Range>>>().filter(|f| !f.is_empty()) {
                return found;
            }
        }
    }
    Vec::new()
}

fn arena(memory: &impl ReadMemory, address: u64, count_at: u64, place: u64) -> Option<Range> {
    let words = memory.words_at(address, ARENA_WORDS)?;
    words.windows(3).find_map(|words| {
        let (owner, index, slices) = (words[0], words[1], words[2]);
        let owned = count_at.checked_sub(owner).is_some_and(|before| before <= BEFORE_COUNT);
        let sound = owned && index == place && (1..1 << 28).contains(&slices);
        sound.then(|| address..address.saturating_add(slices * SLICE))
    })
}

/// Segments in order of address, and where each tells its number of slices.
fn segments(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Vec<(Range, Option<u64>)> {
    let keys = keys(memory, data);
    let mut found = Vec::new();
    let writable = maps.iter().filter(|map| map.is_anonymous() && map.permissions.write);
    for map in writable {
        let mut at = map.start.next_multiple_of(SMALLEST);
        while at < map.end {
            let size = segment(memory, at, &keys);
            if let Some((size, slices_at)) = size {
                // Its end may be reserved only, or given back.
                found.push((at..at.saturating_add(size).min(end_of_run(maps, at)), slices_at));
            }
            let step =
                size.map_or(SMALLEST, |(size, _)| size).next_multiple_of(SMALLEST).max(SMALLEST);
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

/// The size of the segment at `at`, if there is one, and where it tells that.
fn segment(memory: &impl ReadMemory, at: u64, keys: &HashSet<u64>) -> Option<(u64, Option<u64>)> {
    let words = memory.words_at(at, HEADER_WORDS)?;
    let cookie = words.iter().position(|word| keys.contains(&(word ^ at)))?;
    let mut follow = (cookie + 1..words.len()).take(AFTER_COOKIE);
    let slices = follow.find(|index| (1..1 << 30).contains(&words[*index]));
    Some(
        slices
            .map_or((SMALLEST, None), |index| (words[index] * SLICE, Some(at + index as u64 * 8))),
    )
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
    use crate::memory::Pieces;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn arenas_that_point_back_to_their_list_are_found() {
        let (data, first, second) = (0x1000, 0x7f00_0000_0000_u64, 0x7f00_8000_0000_u64);
        let mut memory = Pieces::default();
        memory.put(data, bytes(&[9, 0, 0, 2, first, second, 0]));
        memory.put(first, bytes(&[0, 0, 5, data, 0, 512, 1, 0]));
        let text = format!("{first:x}-{:x} rw-p 0 00:00 0 \n", second + (64 << 20));
        let maps = maps::parse(text.as_bytes()).unwrap();
        let range = data..data + 56;
        let find = |memory: &Pieces| find(memory, std::slice::from_ref(&range), &maps);
        assert!(find(&memory).ranges.is_empty(), "the second has no header");
        memory.put(second, bytes(&[0, 0, 5, data, 1, 1024, 1, 0]));
        assert_eq!(find(&memory).ranges, [first..first + (32 << 20), second..second + (64 << 20)]);
    }

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
        let found = find(&memory, std::slice::from_ref(&(0x1000..0x1008)), &maps).ranges;
        assert_eq!(found.first(), Some(&(at..at + (32 << 20))));
        assert_eq!(found.len(), 1);
        let none = find(&memory, std::slice::from_ref(&(0x2000..0x2008)), &maps);
        assert!(none.ranges.is_empty());
    }
}
