//! tcmalloc's spans (gperftools), read from outside, without symbols.
//!
//! A radix tree leads from pages of 8 KiB to spans; its leaves are arrays of 2^18 words, one a page,
//! and its root stands in the data of the library or the executable. A span's record begins with its
//! first page and its number of pages. Words of pages within a span may lead to records that are no
//! more, but those of its first and its last page lead to it: that circle makes it certain. Follows
//! `pagemap.h`, `span.h` and `page_heap.cc` of gperftools; 2.10 as Debian builds it is run here, with
//! pages of 8 KiB. Google's newer TCMalloc has other leaves and is not read. Live objects and those
//! that caches keep are not told apart: bytes are `heap`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::memory::words;
use crate::{Map, PAGE, Pagemap, Range, ReadMemory, maps, radix};

const LEAF_ENTRIES: u64 = 1 << 18;
const LEAF: u64 = LEAF_ENTRIES * 8;
const SPAN_PAGE: u64 = 8 << 10;
/// Records and leaves are cut from its own memory with this alignment.
const ALIGNMENT: u64 = 8;
const RECORD: u64 = !(ALIGNMENT - 1);
const RECORD_BYTES: usize = 16;
/// More spans than fit a terabyte of small ones.
const MAX_SPANS: usize = 1 << 22;

/// What tcmalloc owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    /// Spans, in use or kept, sorted and apart.
    pub spans: Vec<Range>,
    /// The leaves of its tree and the pages of its records, sorted.
    pub records: Vec<Range>,
}

/// Finds the spans from the writable data of the library or executable that holds tcmalloc.
/// Nothing where no pointer leads to a leaf.
pub fn find(memory: &impl ReadMemory, pagemap: &Pagemap, data: &[Range], maps: &[Map]) -> Spans {
    let mut found = Spans::default();
    let mut pages = BTreeSet::new();
    for room in radix::rooms(memory, pagemap, data, maps, [ALIGNMENT, LEAF]) {
        let before = found.spans.len();
        spans(memory, pagemap, maps, room, &mut found.spans, &mut pages);
        if found.spans.len() > before {
            found.records.push(room / PAGE * PAGE..(room + LEAF).next_multiple_of(PAGE));
        }
    }
    found.records.extend(pages.into_iter().map(|page| page..page + PAGE));
    found.records.sort_unstable_by_key(|range| range.start);
    found.spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    found.spans.dedup_by(|b, a| b.start < a.end);
    found
}

/// Takes the spans of a leaf and the pages of their records; most pointers lead to none.
fn spans(
    memory: &impl ReadMemory,
    pagemap: &Pagemap,
    maps: &[Map],
    leaf: u64,
    spans: &mut Vec<Range>,
    pages: &mut BTreeSet<u64>,
) {
    radix::entries(memory, pagemap, &(leaf..leaf + LEAF), RECORD, |used| {
        // Even words that are out of date lead to where records are or were.
        let is_mapped = |at: u64| maps::find(maps, at).is_some_and(Map::is_anonymous);
        if !used.iter().all(|(_, record)| is_mapped(*record)) {
            return ControlFlow::Break(());
        }
        let addresses: Vec<u64> = used.iter().map(|(_, record)| *record).collect();
        let mut records = vec![0; addresses.len() * RECORD_BYTES];
        memory.read_scattered(&addresses, RECORD_BYTES, &mut records);
        for ((place, address), record) in used.iter().zip(records.chunks_exact(RECORD_BYTES)) {
            let record = words(record);
            let (first, count) = (record[0], record[1]);
            if first % LEAF_ENTRIES != *place || !(1..1 << 34).contains(&count) {
                continue;
            }
            // A span that goes on in the next leaf has its last word there.
            let last = place + count - 1;
            let ends = last >= LEAF_ENTRIES || memory.u64_at(leaf + last * 8) == Some(*address);
            let Some(start) = first.checked_mul(SPAN_PAGE) else { continue };
            if ends && is_mapped(start) && spans.len() < MAX_SPANS {
                spans.push(start..start.saturating_add(count * SPAN_PAGE));
                pages.insert(address / PAGE * PAGE);
            }
        }
        ControlFlow::Continue(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Process;

    /// Large: it lies between other mappings that are as empty.
    fn room() -> Vec<u64> {
        vec![0; LEAF as usize]
    }

    fn found(data: &[u64], seen: [&Vec<u64>; 2]) -> Spans {
        // It is read as another process's memory is.
        std::hint::black_box(seen);
        let own = Process::own();
        let memory = crate::Memory::open(&own).expect("our own memory");
        let pagemap = Pagemap::open(&own).expect("our own pages");
        let maps = maps::read(&own).expect("our own maps");
        let start = data.as_ptr() as u64;
        let data = start..start + data.len() as u64 * 8;
        find(&memory, &pagemap, std::slice::from_ref(&data), &maps)
    }

    #[test]
    fn a_leaf_and_its_records_make_a_circle_and_other_pointers_none() {
        let (mut leaf, pages) = (room(), room());
        let first = (pages.as_ptr() as u64).div_ceil(SPAN_PAGE);
        let mut span = vec![first, 100];
        let data = [7, leaf.as_ptr() as u64, pages.as_ptr() as u64];
        assert_eq!(found(&data, [&leaf, &span]), Spans::default());
        for page in [0, 99] {
            leaf[((first + page) % LEAF_ENTRIES) as usize] = span.as_ptr() as u64;
        }
        let whole = first * SPAN_PAGE..(first + 100) * SPAN_PAGE;
        assert_eq!(found(&data, [&leaf, &span]).spans, std::slice::from_ref(&whole));
        // What leads to no memory is no leaf, however much of it there is.
        leaf[9] = 0x50;
        assert_eq!(found(&data, [&leaf, &span]), Spans::default());
        leaf[9] = 0;
        span[1] = 101;
        assert_eq!(found(&data, [&leaf, &span]), Spans::default(), "its last page leads elsewhere");
    }
}
