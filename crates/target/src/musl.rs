//! musl's malloc (mallocng, 1.2.1 and later), read from outside, without symbols.
//!
//! Every page of `meta` records begins with a secret that also stands first in the allocator's
//! context, in the data of the C library or of a static executable; the pages form a chain. A record
//! tells where its group of slots is, of what size they are, which of them are free, and how many
//! pages the group has, unless it lies in a slot of another. Each live slot says in its own header
//! which one it is, where its group begins and how much was asked for: what is live is believed where
//! record and slots agree. Follows `meta.h` and `malloc.c` of mallocng. 1.2.3 is run here.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use crate::live::{TRIES, believed};
use crate::memory::Cached;
use crate::{Map, PAGE, Range, ReadMemory, Residency, maps};

/// Records of 40 bytes after a header of secret, next page, count.
const RECORD_WORDS: usize = 5;
const RECORDS: u64 = (PAGE - 24) / 40;
const MAX_PAGES: usize = 1 << 20;
/// The context is 1 KiB; a C library's data is small, a static executable's may be anything.
const MAX_DATA: u64 = 16 << 20;

/// Sizes of slots, in units; larger ones have a group of their own.
const UNIT: u64 = 16;
const CLASSES: [u64; 48] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 31, 36, 42, 50, 63, 72, 84, 102, 127, 146,
    170, 204, 255, 292, 340, 409, 511, 584, 682, 818, 1023, 1169, 1364, 1637, 2047, 2340, 2730,
    3276, 4095, 4680, 5460, 6552, 8191,
];
const ALONE: u64 = 63;
/// What stands before and after what was asked for.
const HEADER: u64 = 4;
/// Instead of how much of a slot is unused: that its end says so, that it holds a group, and in its
/// first header that it begins later.
const AT_END: u8 = 5;
const GROUP: u8 = 6;
const LATER: u8 = 7;

/// What musl's malloc owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heap {
    /// Groups of whole pages, by address; not those within slots of others.
    pub groups: Vec<Range>,
    /// The pages of records.
    pub records: Vec<Range>,
    /// All groups, within slots too.
    all: Vec<Group>,
}

/// A group of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// Where its record is.
    record: u64,
    start: u64,
    /// Of its own mapping; 0 within a slot.
    bytes: u64,
    stride: u64,
    slots: u64,
    live: u32,
}

/// Finds it. Nothing where no chain of records does.
pub fn find(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Heap {
    let mut found = Heap::default();
    let words: Vec<u64> = data
        .iter()
        .filter_map(|range| {
            let start = range.start.next_multiple_of(8);
            let length = range.end.checked_sub(start)?.min(MAX_DATA) as usize;
            let mut bytes = vec![0; length];
            let got = memory.read_at(start, &mut bytes);
            Some(crate::memory::words(&bytes[..got]))
        })
        .flatten()
        .collect();
    let known: HashSet<u64> = words.iter().copied().filter(|word| word >> 32 != 0).collect();
    let mut seen = HashSet::new();
    for &pointer in &words {
        let page = pointer / PAGE * PAGE;
        let mapped = || maps::find(maps, page).is_some_and(Map::is_anonymous);
        if page == 0 || seen.contains(&page) || !mapped() {
            continue;
        }
        let Some(secret) = memory.u64_at(page).filter(|secret| known.contains(secret)) else {
            continue;
        };
        follow(memory, page, secret, &mut seen, &mut found);
    }
    found.all.sort_unstable_by_key(|group| group.start);
    let whole = found.all.iter().filter(|group| group.bytes > 0);
    found.groups =
        whole.map(|group| group.start / PAGE * PAGE..group.start + group.bytes).collect();
    found.records.sort_unstable_by_key(|page| page.start);
    found
}

fn follow(
    memory: &impl ReadMemory,
    first: u64,
    secret: u64,
    seen: &mut HashSet<u64>,
    found: &mut Heap,
) {
    let (groups_before, records_before) = (found.all.len(), found.records.len());
    let mut page = first;
    while seen.len() < MAX_PAGES && seen.insert(page) {
        let Some(words) = memory.words_at(page, PAGE as usize / 8) else { break };
        let count = words[2] as u32;
        if words[0] != secret || u64::from(count) > RECORDS {
            break;
        }
        let records = words[3..].chunks_exact(RECORD_WORDS).take(count as usize);
        let groups =
            records.zip((page + 24..).step_by(RECORD_WORDS * 8)).filter_map(|(words, at)| {
                // A group begins with the address of its record.
                group(words, at).filter(|group| memory.u64_at(group.start) == Some(at))
            });
        found.all.extend(groups);
        found.records.push(page..page + PAGE);
        page = words[1];
        if !page.is_multiple_of(PAGE) || page == 0 {
            break;
        }
    }
    // What leads to no group is no chain.
    if found.all.len() == groups_before {
        found.records.truncate(records_before);
    }
}

/// A record: previous, next, memory, masks of free slots; then the last slot's index in 5 bits, a flag,
/// the class in 6 bits, and the group's pages.
fn group(words: &[u64], record: u64) -> Option<Group> {
    let (start, masks, class, pages) = (words[2], words[3], words[4] >> 6 & 63, words[4] >> 12);
    let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes < 1 << 46)?;
    let slots = (words[4] & 31) + 1;
    let stride = match (slots, bytes) {
        (1, 1..) => bytes - UNIT,
        _ => UNIT * CLASSES.get(class as usize)?,
    };
    let fits = bytes == 0 || UNIT + slots * stride <= bytes;
    let sound =
        start > 0 && start.is_multiple_of(UNIT) && fits && start.checked_add(1 << 46).is_some();
    let known = (class as usize) < CLASSES.len() || class == ALONE;
    let free = masks as u32 | (masks >> 32) as u32;
    let every = u32::MAX >> (32 - slots);
    (sound && known && free & !every == 0).then_some(Group {
        record,
        start,
        bytes,
        stride,
        slots,
        live: every & !free,
    })
}

impl Heap {
    /// Resident bytes that are live in each of [`Heap::groups`], headers included; `None` where time is
    /// up or slots contradict their records.
    pub fn in_use(
        &self,
        memory: &impl ReadMemory,
        residency: &Residency,
        until: Instant,
    ) -> Option<Vec<u64>> {
        let mut live: BTreeMap<u64, u64> =
            self.groups.iter().map(|group| (group.start, 0)).collect();
        let mut unsettled = 0;
        for group in &self.all {
            if Instant::now() > until {
                return None;
            }
            let within = live.range_mut(..=group.start).next_back();
            // What images had left over was given to the allocator, and is theirs.
            let Some((_, in_use)) = within.filter(|(start, _)| self.holds(**start, group)) else {
                continue;
            };
            let mut tally = group.tally(memory, residency);
            for _ in 1..TRIES {
                if tally.1 == 0 {
                    break;
                }
                let again = group.tally(memory, residency);
                tally = if again.1 < tally.1 { again } else { tally };
            }
            *in_use += tally.0;
            unsettled += tally.1;
        }
        believed(live.into_values().collect(), &self.groups, unsettled, residency)
    }

    fn holds(&self, start: u64, group: &Group) -> bool {
        let index = self.groups.partition_point(|whole| whole.start < start);
        self.groups.get(index).is_some_and(|whole| {
            whole.start == start && group.start + UNIT + group.slots * group.stride <= whole.end
        })
    }
}

impl Group {
    /// What is live of it by now, and in how many bytes of slots that contradict its record.
    fn tally(&self, memory: &impl ReadMemory, residency: &Residency) -> (u64, u64) {
        let record = memory.words_at(self.record, RECORD_WORDS);
        let now = record.and_then(|words| group(&words, self.record));
        // It was given back, or is another one.
        let Some(now) = now.filter(|now| now.start == self.start && now.bytes == self.bytes) else {
            return (0, 0);
        };
        let memory = Cached::new(memory);
        let live = (0..now.slots).filter(|slot| now.live >> slot & 1 == 1);
        live.fold((0, 0), |(live, unsettled), slot| match live_slot(&memory, &now, slot) {
            Some(range) => (live + residency.bytes_in(&range), unsettled),
            None => (live, unsettled + now.stride),
        })
    }
}

/// What is live of a slot: what was asked for, with its header. Of one that holds a group nothing: that
/// has a record of its own. `None` where it contradicts the record.
fn live_slot(memory: &impl ReadMemory, group: &Group, slot: u64) -> Option<Range> {
    let word = |at: u64| memory.u32_at(at).map(u32::to_le_bytes);
    let first = group.start + UNIT + slot * group.stride;
    let end = first + group.stride - HEADER;
    let mut begin = first;
    let mut header = word(begin - HEADER)?;
    let distance = |header: [u8; 4]| u64::from(u16::from_le_bytes([header[2], header[3]]));
    if header[1] >> 5 == LATER {
        begin += UNIT * distance(header);
        header = word(begin - HEADER)?;
    }
    // Where it does not fit 16 bits it stands before.
    let units = match header[0] {
        0 => distance(header),
        _ => u64::from(memory.u32_at(begin - 2 * HEADER)?),
    };
    let agrees = u64::from(header[1] & 31) == slot
        && group.start + UNIT + UNIT * units == begin
        && begin <= end;
    let unused = match header[1] >> 5 {
        GROUP => return agrees.then_some(begin..begin),
        AT_END => u64::from(memory.u32_at(end - HEADER)?),
        unused => u64::from(unused),
    };
    (agrees && unused <= end - begin).then(|| begin - HEADER..end - unused)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::Pieces;

    const DATA: u64 = 0x1000;
    const RECORDS_AT: u64 = 0x10_0000;
    const LARGE: u64 = 0x20_0000;
    const SECRET: u64 = 0x1234_5678_9abc_def0;

    fn put(bytes: &mut [u8], at: usize, word: &[u8]) {
        bytes[at..at + word.len()].copy_from_slice(word);
    }

    fn word(bytes: &mut [u8], at: usize, word: u64) {
        put(bytes, at, &word.to_le_bytes());
    }

    /// A group of two slots of 8,176 bytes: the first is live and 100 bytes were asked for at its third
    /// unit, the second holds a group of three slots of 96 bytes, of which the second is free, the first
    /// is full and the third, which is also live, has 5 bytes that are not used.
    fn memory(spoil: impl Fn(&mut [u8], &mut [u8])) -> (Pieces, Vec<Map>) {
        let mut data = vec![0; 64];
        word(&mut data, 8, SECRET);
        word(&mut data, 24, RECORDS_AT + 24);
        let mut records = vec![0; PAGE as usize];
        word(&mut records, 0, SECRET);
        word(&mut records, 16, 2);
        let inner = LARGE + 16 + 8176;
        for (at, start, masks, bits) in
            [(24, LARGE, 0, 1 | 31 << 6 | 4 << 12), (64, inner, 2 << 32, 2 | 5 << 6)]
        {
            word(&mut records, at + 16, start);
            word(&mut records, at + 24, masks);
            word(&mut records, at + 32, bits);
        }
        let mut group = vec![0; 4 * PAGE as usize];
        word(&mut group, 0, RECORDS_AT + 24);
        // The slot's first header leads to where it begins.
        put(&mut group, 12, &[0, 7 << 5, 2, 0]);
        put(&mut group, 16 + 32 - 4, &[0, 5 << 5, 2, 0]);
        let unused = 8176 - 4 - 32 - 100_u32;
        put(&mut group, 16 + 8176 - 8, &unused.to_le_bytes());
        let within = 16 + 8176;
        put(&mut group, within - 4, &[0, 6 << 5 | 1, 0xff, 1]);
        word(&mut group, within, RECORDS_AT + 64);
        put(&mut group, within + 12, &[0, 0, 0, 0]);
        put(&mut group, within + 16 + 192 - 4, &[0, 5 << 5 | 2, 12, 0]);
        put(&mut group, within + 16 + 288 - 8, &5_u32.to_le_bytes());
        spoil(&mut records, &mut group);
        let mut memory = Pieces::default();
        [(DATA, data), (RECORDS_AT, records), (LARGE, group)]
            .into_iter()
            .for_each(|(at, bytes)| memory.put(at, bytes));
        let map = |start: u64, end: u64| format!("{start:x}-{end:x} rw-p 0 00:00 0 \n");
        let text = map(RECORDS_AT, RECORDS_AT + PAGE) + &map(LARGE, LARGE + 4 * PAGE);
        (memory, maps::parse(text.as_bytes()).expect("maps"))
    }

    fn split(memory: &Pieces, maps: &[Map]) -> (Heap, Option<Vec<u64>>) {
        let heap = find(memory, std::slice::from_ref(&(DATA..DATA + 64)), maps);
        let residency = Residency::of(std::iter::once(LARGE..LARGE + 4 * PAGE));
        let in_use = heap.in_use(memory, &residency, Instant::now() + Duration::from_secs(9));
        (heap, in_use)
    }

    #[test]
    fn what_was_asked_for_is_live_and_a_group_within_a_slot_counts_for_itself() {
        let (memory, maps) = memory(|_, _| {});
        let (heap, in_use) = split(&memory, &maps);
        assert_eq!(heap.groups, std::slice::from_ref(&(LARGE..LARGE + 4 * PAGE)));
        assert_eq!(heap.records, std::slice::from_ref(&(RECORDS_AT..RECORDS_AT + PAGE)));
        assert_eq!(in_use, Some(vec![4 + 100 + 4 + 92 + 4 + 92 - 5]));
    }

    #[test]
    fn slots_that_contradict_their_record_are_no_truth() {
        // Much of the memory speaks of another slot.
        let (memory, maps) = memory(|records, group| {
            word(records, 24 + 32, 1 << 5 | 63 << 6 | 64 << 12);
            put(group, 12, &[0, 3, 9, 0]);
        });
        let (heap, in_use) = split(&memory, &maps);
        assert_eq!((heap.groups.len(), in_use), (1, None));
    }

    #[test]
    fn whatever_stands_there_no_more_is_live_than_is_resident() {
        for seed in 0..4000_u64 {
            let random =
                |n: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32 * 9);
            let (memory, maps) = memory(|records, group| {
                let at = 24 + (random(1) % 80) as usize;
                records[at] = random(2) as u8;
                let near = [12, 44, 16 + 8172, within(random(3))][(random(4) % 4) as usize];
                put(group, near, &(random(5) as u32).to_le_bytes());
            });
            let (_, in_use) = split(&memory, &maps);
            let most = |bytes: &u64| *bytes <= 4 * PAGE;
            assert!(in_use.iter().flatten().all(most), "seed {seed}: {in_use:?}");
        }
    }

    fn within(random: u64) -> usize {
        16 + 8176 + (random % 300) as usize
    }
}
