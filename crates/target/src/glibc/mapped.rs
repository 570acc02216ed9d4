//! Chunks so large that malloc mapped each of them.

use std::time::Instant;

use crate::{PAGE, Range, ReadMemory, Residency};

/// What looks like mapped chunks in some ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Each, in order of address.
    pub chunks: Vec<Range>,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the time was over before all was seen.
    pub late: bool,
}

const IS_MAPPED: u64 = 2;
const FLAGS: u64 = 7;
const HEADER: u64 = 16;
/// Pages whose first words are asked for at once.
const BATCH: usize = 512;

/// Finds mapped chunks in ranges of private anonymous memory that no one else owns: a header at the
/// start of a page with the mark of a mapped chunk and whole pages as its size. It looks until
/// `wanted` bytes are found ([`Params::mapped_bytes`](super::Params)): first where ranges start and
/// chunks end, then, where `residency` tells what is resident, at every resident page, since a
/// header was written. The caller holds the sum against `wanted`: memory whose `munmap` was put off
/// looks the same.
pub fn mapped_chunks(
    memory: &impl ReadMemory,
    ranges: &[Range],
    wanted: u64,
    residency: Option<&Residency>,
    until: Instant,
) -> Mapped {
    let mut found = Mapped::default();
    let mut left = chained(memory, ranges, wanted, &mut found, until);
    if let Some(residency) = residency.filter(|_| found.bytes < wanted && !found.late) {
        left.sort_unstable_by_key(|range| range.start);
        for range in &left {
            scan(memory, range, residency, &mut found, until);
        }
    }
    found.chunks.sort_unstable_by_key(|chunk| chunk.start);
    found
}

/// Follows chunks from the starts of ranges, all ranges at once, and returns what is left of them.
fn chained(
    memory: &impl ReadMemory,
    ranges: &[Range],
    wanted: u64,
    found: &mut Mapped,
    until: Instant,
) -> Vec<Range> {
    let mut left = Vec::new();
    let mut going: Vec<Range> = ranges.to_vec();
    let mut bytes = vec![0; BATCH * 16];
    while !going.is_empty() && !found.late {
        let mut next = Vec::new();
        for ranges in going.chunks(BATCH) {
            let starts: Vec<u64> = ranges.iter().map(|range| range.start).collect();
            let bytes = &mut bytes[..starts.len() * 16];
            memory.read_scattered(&starts, 16, bytes);
            for (range, header) in ranges.iter().zip(crate::memory::words(bytes).chunks_exact(2)) {
                let (front, told) = (header[0], header[1]);
                let size = size(front, told, range.start, range);
                let Some(size) = size.or_else(|| grown(front, told, range, wanted)) else {
                    left.push(range.clone());
                    continue;
                };
                found.take(range.start, size);
                if range.start + size < range.end {
                    next.push(range.start + size..range.end);
                }
            }
            found.late = Instant::now() > until;
        }
        going = next;
    }
    left
}

fn scan(
    memory: &impl ReadMemory,
    range: &Range,
    residency: &Residency,
    found: &mut Mapped,
    until: Instant,
) {
    let mut bytes = vec![0; BATCH * 16];
    let mut at = range.start;
    // Chunks often follow each other: after one, only the next page need be asked for.
    let mut at_once = BATCH;
    while at < range.end && !found.late {
        let pages: Vec<u64> = resident_pages(residency, at, range).take(at_once).collect();
        let Some(last) = pages.last() else { return };
        let bytes = &mut bytes[..pages.len() * 16];
        memory.read_scattered(&pages, 16, bytes);
        let headers = crate::memory::words(bytes);
        let hit = pages
            .iter()
            .zip(headers.chunks_exact(2))
            .find_map(|(&page, header)| Some((page, size(header[0], header[1], page, range)?)));
        at_once = if hit.is_some() { 1 } else { BATCH };
        at = hit.map_or(last + PAGE, |(page, size)| page + size);
        if let Some((page, size)) = hit {
            found.take(page, size);
        }
        found.late = Instant::now() > until;
    }
}

impl Mapped {
    fn take(&mut self, start: u64, size: u64) {
        self.chunks.push(start..start + size);
        self.bytes += size;
    }
}

fn size(front: u64, header: u64, page: u64, range: &Range) -> Option<u64> {
    let told = header & !FLAGS;
    // Since 2.43 the header itself is not counted.
    let size = if told.is_multiple_of(PAGE) { told } else { told.checked_add(HEADER)? };
    let fits = header & FLAGS == IS_MAPPED
        && front < PAGE
        && front.is_multiple_of(16)
        && size > 0
        && size.is_multiple_of(PAGE)
        && page.checked_add(size)? <= range.end;
    fits.then_some(size)
}

/// A chunk that `realloc` has made larger since the maps were read: what of it was mapped then.
fn grown(front: u64, told: u64, range: &Range, wanted: u64) -> Option<u64> {
    const SINCE: u64 = 1 << 20;
    let bytes = range.end - range.start;
    let most = bytes / 8 + SINCE;
    let later = range.start..range.end.checked_add(most)?;
    // What malloc counts was read at a third moment.
    size(front, told, range.start, &later).filter(|size| *size <= wanted.saturating_add(most))?;
    Some(bytes)
}

fn resident_pages(residency: &Residency, at: u64, range: &Range) -> impl Iterator<Item = u64> {
    let from = residency.runs().partition_point(|run| run.end <= at);
    let end = range.end;
    residency.runs()[from..]
        .iter()
        .take_while(move |run| run.start < end)
        .flat_map(move |run| (run.start.max(at)..run.end.min(end)).step_by(PAGE as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Heads(Vec<(u64, u64)>);

    impl ReadMemory for Heads {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            out.fill(0);
            if let Some((_, size)) = self.0.iter().find(|(at, _)| *at == address) {
                out[8..16].copy_from_slice(&(size | IS_MAPPED).to_le_bytes());
            }
            out.len()
        }
    }

    #[test]
    fn a_chunk_that_grew_since_the_maps_were_read_is_one() {
        let until = Instant::now() + std::time::Duration::from_secs(60);
        let range = 0x10_0000..0x90_0000;
        let find = |size: u64, wanted: u64| {
            let memory = Heads(vec![(range.start, size)]);
            mapped_chunks(&memory, std::slice::from_ref(&range), wanted, None, until).chunks
        };
        assert_eq!(find(0x80_5000, 0x80_5000), std::slice::from_ref(&range), "a few pages more");
        assert_eq!(find(0x80_5000, 0x10_0000), [], "malloc counts less");
        assert_eq!(find(0x200_0000, 0x200_0000), [], "four times as much is another thing");
    }
}
