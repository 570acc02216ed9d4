//! Leaves of the radix trees by which allocators find the record of a page: arrays with a word a page.
//!
//! No symbol tells where a root is, so that it is only scanned for pointers to room for a leaf;
//! whether there is one, the allocator's own reader finds from what the words lead to.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::memory::words;
use crate::{Map, PAGE, Pagemap, Range, ReadMemory, maps};

const PIECE: u64 = 64 << 10;
/// A root has an entry for each gigabyte or so; data may be full of other pointers.
const MOST_ROOMS: usize = 4096;

/// Addresses in resident data that are multiples of `alignment` and have room for a leaf behind them.
pub(crate) fn rooms(
    memory: &impl ReadMemory,
    pagemap: &Pagemap,
    data: &[Range],
    maps: &[Map],
    [alignment, leaf]: [u64; 2],
) -> Vec<u64> {
    let mut seen = HashSet::new();
    let mut rooms = Vec::new();
    for range in data {
        let pages = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
        let _ended = read(memory, pagemap, &pages, |_, words| {
            let candidates = words.iter().filter(|word| word.is_multiple_of(alignment));
            rooms.extend(candidates.filter(|w| seen.insert(**w) && is_room(maps, **w, leaf)));
            match rooms.len() {
                MOST_ROOMS.. => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
    }
    rooms
}

fn is_room(maps: &[Map], address: u64, leaf: u64) -> bool {
    address > 0
        && maps::find(maps, address).is_some_and(|map| {
            map.is_anonymous() && map.permissions.write && address + leaf <= map.end
        })
}

/// Shows the entries of a leaf, in pieces: their places and the records that they lead to, by the bits
/// of `mask`; until there are no more or `look` breaks off.
pub(crate) fn entries(
    memory: &impl ReadMemory,
    pagemap: &Pagemap,
    leaf: &Range,
    mask: u64,
    mut look: impl FnMut(&[(u64, u64)]) -> ControlFlow<()>,
) {
    let _ended = read(memory, pagemap, leaf, |at, words| {
        let places = (at - leaf.start) / 8..;
        let entries = places.zip(words).map(|(place, word)| (place, word & mask));
        look(&entries.filter(|(_, record)| *record != 0).collect::<Vec<_>>())
    });
}

fn read(
    memory: &impl ReadMemory,
    pagemap: &Pagemap,
    range: &Range,
    mut look: impl FnMut(u64, &[u64]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut bytes = vec![0; PIECE as usize];
    for run in pagemap.resident(&(range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE))) {
        let end = run.range.end.min(range.end);
        let start = run.range.start.max(range.start);
        for at in (start..end).step_by(PIECE as usize) {
            let length = (end - at).min(PIECE) as usize;
            let got = memory.read_at(at, &mut bytes[..length]);
            look(at, &words(&bytes[..got]))?;
        }
    }
    ControlFlow::Continue(())
}
