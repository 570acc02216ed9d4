//! jemalloc's extents, read from outside, without symbols.
//!
//! jemalloc 5 keeps a radix tree from pages to extents. Its leaves are arrays of 2^18 words, one a
//! page; a word holds the address of the extent's own record, which holds the address of the page
//! again. That circle finds the extents from any pointer to a leaf, so the root, whose place no
//! symbol tells, is only scanned for pointers. Follows `rtree.h`, `extent_structs.h` (5.2) and
//! `edata.h` (5.3); 5.3.0 as Debian builds it is run here, 5.2 is untested. Live and freed regions
//! within extents are not told apart: bytes are `heap`.

use std::ops::ControlFlow;

use crate::memory::words;
use crate::{Map, PAGE, Pagemap, Range, ReadMemory, radix};

/// Two levels of 18 bits above 12 bits of page, on 48-bit addresses.
const LEAF_ENTRIES: u64 = 1 << 18;
const LEAF: u64 = LEAF_ENTRIES * 8;
const ALIGNMENT: u64 = 64;
/// The record's address: 48 bits, aligned to 128; flags below, size class above.
const RECORD: u64 = 0x0000_ffff_ffff_ff80;
/// A record begins with bits, address, size with a serial number in its low bits.
const RECORD_WORDS: usize = 3;
/// More extents than fit a terabyte of small ones.
const MAX_EXTENTS: usize = 1 << 22;

/// What jemalloc owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents {
    /// Extents, live or kept, sorted and apart.
    pub extents: Vec<Range>,
    /// The leaves of its radix tree.
    pub leaves: Vec<Range>,
}

/// Finds the extents from the writable data of the library or executable that holds jemalloc.
/// Nothing where no pointer leads to a leaf.
pub fn find(memory: &impl ReadMemory, pagemap: &Pagemap, data: &[Range], maps: &[Map]) -> Extents {
    let mut found = Extents::default();
    for room in radix::rooms(memory, pagemap, data, maps, [ALIGNMENT, LEAF]) {
        leaf(memory, pagemap, room..room + LEAF, &mut found);
    }
    found.extents.sort_unstable_by_key(|extent| (extent.start, std::cmp::Reverse(extent.end)));
    found.extents.dedup_by(|b, a| b.start < a.end);
    found
}

/// Takes the extents of a leaf; most pointers lead to none.
fn leaf(memory: &impl ReadMemory, pagemap: &Pagemap, leaf: Range, found: &mut Extents) {
    let before = found.extents.len();
    let (mut entries, mut agreeing) = (0u64, 0u64);
    radix::entries(memory, pagemap, &leaf, RECORD, |used| {
        let addresses: Vec<u64> = used.iter().map(|(_, record)| *record).collect();
        let mut records = vec![0; addresses.len() * RECORD_WORDS * 8];
        memory.read_scattered(&addresses, RECORD_WORDS * 8, &mut records);
        for ((page, _), record) in used.iter().zip(records.chunks_exact(RECORD_WORDS * 8)) {
            entries += 1;
            let record = words(record);
            let (start, size) = (record[1] / PAGE * PAGE, record[2] / PAGE * PAGE);
            let sane = size > 0 && size < 1 << 46 && start.checked_add(size).is_some();
            let within = |address: u64| address / PAGE % LEAF_ENTRIES;
            // Interior pages of small extents and last pages of large ones are entered too.
            let pages = within(start)..=within(start) + size / PAGE;
            agreeing += u64::from(sane && pages.contains(page));
            if sane && within(start) == *page && found.extents.len() < MAX_EXTENTS {
                found.extents.push(start..start + size);
            }
        }
        // A pointer to something else shows at once.
        if entries > 64 && agreeing * 2 < entries {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    if entries == 0 || agreeing * 10 < entries * 9 {
        found.extents.truncate(before);
    } else {
        found.leaves.push(leaf);
    }
}
