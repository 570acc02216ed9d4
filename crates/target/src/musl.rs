//! musl's malloc (mallocng, 1.2.1 and later), read from outside, without symbols.
//!
//! Every page of `meta` records begins with a secret that also stands first in the allocator's
//! context, in the data of the C library or of a static executable; the pages form a chain. A record
//! tells where its group of slots is and how many pages the group has. Follows `meta.h` of
//! mallocng. 1.2.3 is run here. Live and freed slots are not told apart: bytes are `heap`.

use std::collections::HashSet;

use crate::{Map, PAGE, Range, ReadMemory, maps};

/// Records of 40 bytes after a header of secret, next page, count.
const RECORD_WORDS: usize = 5;
const RECORDS: u64 = (PAGE - 24) / 40;
const MAX_PAGES: usize = 1 << 20;
/// The context is 1 KiB; a C library's data is small, a static executable's may be anything.
const MAX_DATA: u64 = 16 << 20;

/// What musl's malloc owns, in order of address: groups of whole pages, and the pages of records.
pub fn find(memory: &impl ReadMemory, data: &[Range], maps: &[Map]) -> Vec<Range> {
    let mut found = Vec::new();
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
    found.sort_unstable_by_key(|range: &Range| range.start);
    found
}

fn follow(
    memory: &impl ReadMemory,
    first: u64,
    secret: u64,
    seen: &mut HashSet<u64>,
    found: &mut Vec<Range>,
) {
    let mut page = first;
    while seen.len() < MAX_PAGES && seen.insert(page) {
        let Some(words) = memory.words_at(page, PAGE as usize / 8) else { return };
        let count = words[2] as u32;
        if words[0] != secret || u64::from(count) > RECORDS {
            return;
        }
        let records = words[3..].chunks_exact(RECORD_WORDS).take(count as usize).enumerate();
        let groups = records.filter_map(|(index, record)| {
            let own = page + 24 + (index * RECORD_WORDS * 8) as u64;
            // A group begins with the address of its record.
            group(record).filter(|_| memory.u64_at(record[2]) == Some(own))
        });
        let before = found.len();
        found.extend(groups);
        if found.len() == before && page == first {
            return;
        }
        found.push(page..page + PAGE);
        page = words[1];
        if !page.is_multiple_of(PAGE) || page == 0 {
            return;
        }
    }
}

/// A record: previous, next, memory, masks, and the group's pages above 12 bits.
fn group(record: &[u64]) -> Option<Range> {
    let (memory, pages) = (record[2], record[4] >> 12);
    let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes > 0 && bytes < 1 << 46)?;
    (memory > 0 && memory.is_multiple_of(16))
        .then(|| memory / PAGE * PAGE..memory / PAGE * PAGE + bytes)
}
