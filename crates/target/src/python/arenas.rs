//! The array of arenas.

use std::collections::HashSet;

use crate::{Map, PAGE, Range, ReadMemory, maps};

/// One arena that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// Its memory as it was mapped.
    pub range: Range,
    /// Its place in the array: pools carry it.
    pub index: u32,
    /// The first address that no pool was carved from yet.
    pub fresh: u64,
    /// Size of its pools, in bytes.
    pub pool_size: u64,
}

/// `struct arena_object`: address, next fresh pool, free and total pools, list of freed pools, next,
/// previous.
const ENTRY: u64 = 48;
/// `INITIAL_ARENA_OBJECTS`; the array doubles.
const FIRST_ENTRIES: u32 = 16;
const MOST_ENTRIES: u32 = 1 << 22;

/// Sizes of arenas and of their pools, in bytes.
type Sizes = (u64, u64);

/// 3.10 and later with a radix tree, and before.
fn sizes(minor: u32) -> Sizes {
    if minor >= 10 { (1 << 20, 16 << 10) } else { (256 << 10, 4 << 10) }
}
/// What is read of a data segment at once.
const PIECE: usize = 1 << 20;

/// Finds the arenas that are in use, by their array, from the writable data of CPython 3.`minor`. `None`
/// where no array, or more than one that differ, agrees with itself: then nothing is certain.
pub fn find(
    memory: &impl ReadMemory,
    data: &[Range],
    maps: &[Map],
    minor: u32,
) -> Option<Vec<Arena>> {
    let sizes = sizes(minor);
    let mut pointers: HashSet<u64> = HashSet::new();
    let mut bytes = vec![0; PIECE];
    for range in data {
        for at in (range.start.next_multiple_of(8)..range.end).step_by(PIECE) {
            let length = (range.end - at).min(PIECE as u64) as usize;
            let got = memory.read_at(at, &mut bytes[..length]);
            let words = crate::memory::words(&bytes[..got]);
            pointers.extend(words.into_iter().filter(|word| word.is_multiple_of(16)));
        }
    }
    pointers.retain(|&pointer| looks_mapped(maps, pointer));
    let pointers: Vec<u64> = pointers.into_iter().collect();
    let mut first = vec![0; pointers.len() * ENTRY as usize];
    memory.read_scattered(&pointers, ENTRY as usize, &mut first);
    let mut arrays: Vec<u64> = pointers
        .iter()
        .zip(first.chunks_exact(ENTRY as usize))
        .filter(|(array, first)| may_start(&crate::memory::words(first), **array, maps, sizes))
        .map(|(&array, _)| array)
        .collect();
    // The state also points into the array (unused and usable entries): the array starts lowest.
    arrays.sort_unstable();
    let candidates = arrays.iter().filter_map(|&array| read(memory, array, maps, sizes));
    candidates.max_by_key(std::vec::Vec::len).filter(|arenas| !arenas.is_empty())
}

/// The array is larger than what malloc maps only with thousands of arenas: heap or anonymous.
fn looks_mapped(maps: &[Map], address: u64) -> bool {
    maps::find(maps, address).is_some_and(|map| map.is_anonymous() && map.permissions.write)
}

/// A cheap look before the whole array is read: its first entry.
fn may_start(words: &[u64], array: u64, maps: &[Map], sizes: Sizes) -> bool {
    if words[0] == 0 {
        // An arena that was given back; its entry is on the list of unused ones.
        return words[4] == 0 || is_link(words[4], array);
    }
    entry(words, 0, sizes).is_some_and(|arena| is_mapped(maps, &arena))
}

/// Whether a link leads to an entry of the array.
fn is_link(link: u64, array: u64) -> bool {
    let reach = u64::from(MOST_ENTRIES) * ENTRY;
    link.checked_sub(array).is_some_and(|into| into < reach && into.is_multiple_of(ENTRY))
}

/// Reads entries as long as they agree; an array must agree up to a size that doubling gives.
fn read(memory: &impl ReadMemory, array: u64, maps: &[Map], sizes: Sizes) -> Option<Vec<Arena>> {
    let mut found: Vec<Arena> = Vec::new();
    let mut size = FIRST_ENTRIES;
    let mut from = 0;
    while size <= MOST_ENTRIES {
        let start = array.checked_add(u64::from(from) * ENTRY)?;
        let words = memory.words_at(start, (size - from) as usize * ENTRY as usize / 8);
        let Some(more) = words.and_then(|words| entries(&words, from, array, maps, sizes)) else {
            break;
        };
        found.extend(more);
        (from, size) = (size, size * 2);
    }
    let mut starts: Vec<u64> = found.iter().map(|arena| arena.range.start).collect();
    starts.sort_unstable();
    let apart = starts.windows(2).all(|pair| pair[1] - pair[0] >= sizes.0);
    (apart && from > 0).then_some(found)
}

fn entries(words: &[u64], from: u32, array: u64, maps: &[Map], sizes: Sizes) -> Option<Vec<Arena>> {
    let mut found = Vec::new();
    for (index, words) in (from..).zip(words.chunks_exact(ENTRY as usize / 8)) {
        // The links of an arena without free pools are left as they were.
        let is_full = words[0] != 0 && words[2] as u32 == 0;
        if !is_full && words[4] != 0 && !is_link(words[4], array) {
            return None;
        }
        if words[0] != 0 {
            // One that is younger than the maps is left out, and the array still agrees.
            found.extend(Some(entry(words, index, sizes)?).filter(|arena| is_mapped(maps, arena)));
        }
    }
    Some(found)
}

fn is_mapped(maps: &[Map], arena: &Arena) -> bool {
    maps::find(maps, arena.range.start)
        .is_some_and(|map| map.is_anonymous() && map.permissions.write && map.permissions.read)
}

/// An entry in use, where all its fields agree with each other.
fn entry(words: &[u64], index: u32, sizes: Sizes) -> Option<Arena> {
    let (address, fresh) = (words[0], words[1]);
    let (free, total) = (words[2] as u32, (words[2] >> 32) as u32);
    let (arena_size, pool_size) = sizes;
    let end = address.checked_add(arena_size)?;
    let first = address.checked_next_multiple_of(pool_size)?;
    // The last pool is lost where the arena is not aligned to its pools.
    let whole = (arena_size / pool_size) as u32 - u32::from(first != address);
    let sound = address.is_multiple_of(PAGE)
        && total == whole
        && free <= total
        && fresh >= first
        && fresh <= end
        && (fresh - first).is_multiple_of(pool_size)
        && (words[3] == 0 || (first..end).contains(&words[3]));
    sound.then_some(Arena { range: address..end, index, fresh, pool_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAY: u64 = 0x10_0000;

    struct Words(Vec<u64>);

    impl ReadMemory for Words {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            let bytes: Vec<u8> = self.0.iter().flat_map(|w| w.to_le_bytes()).collect();
            let Some(at) = address.checked_sub(ARRAY).map(|a| a as usize) else { return 0 };
            let got = bytes.len().saturating_sub(at).min(out.len());
            out[..got].copy_from_slice(&bytes[at.min(bytes.len())..][..got]);
            got
        }
    }

    #[test]
    fn an_arena_younger_than_the_maps_hides_no_other() {
        let (size, pool) = sizes(11);
        let arena = |n: u64| 0x4000_0000 + n * size;
        let words = (0..32).flat_map(|n| {
            let free = (size / pool) << 32;
            if n < 20 { [arena(n), arena(n), free, 0, 0, 0] } else { [0; 6] }
        });
        let memory = Words(words.collect());
        let line = format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", arena(0), arena(19));
        let maps = maps::parse(line.as_bytes()).expect("maps");
        let found = read(&memory, ARRAY, &maps, (size, pool)).expect("an array");
        assert_eq!(found.len(), 19);
    }
}
