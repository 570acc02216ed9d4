//! The heap walk over memory that was made by hand: sound, torn, circular.

use std::time::{Duration, Instant};

use plumb_target::glibc::{Arena, Glibc, Segment, Torn, mapped_chunks};
use plumb_target::memory::Pieces;
use plumb_target::{Range, Residency};

const START: u64 = 0x10_0000;
const BYTES: u64 = 0x4_0000;
const IN_USE: u64 = 1;

/// A heap whose chunks have these sizes and flags, then a top chunk; bins far away.
struct Heap {
    words: Vec<u64>,
    at: u64,
}

impl Heap {
    fn new() -> Self {
        Self { words: vec![0; BYTES as usize / 8], at: START }
    }

    /// A chunk; `previous` says whether the one before it lives.
    fn chunk(&mut self, size: u64, previous: u64) -> u64 {
        let address = self.at;
        self.set(address + 8, size | previous);
        self.at += size;
        address
    }

    fn set(&mut self, address: u64, word: u64) {
        self.words[((address - START) / 8) as usize] = word;
    }

    fn finish(mut self, fastbins: [u64; 10]) -> (Glibc, Pieces) {
        let top = self.at..START + BYTES;
        self.set(self.at + 8, (top.end - top.start) | IN_USE);
        let mut memory = Pieces::default();
        let bins = 0x9000;
        memory.put(START, bytes(&self.words));
        memory.put(bins - 96, bytes(&fastbins));
        let segment =
            Segment { range: START..START + BYTES, first_chunk: START, top: Some(top.clone()) };
        let arena =
            Arena { address: bins - 112, bins, top, system_bytes: BYTES, segments: vec![segment] };
        (Glibc { arenas: vec![arena], params: None }, memory)
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn tally(malloc: &Glibc, memory: &Pieces, resident: &[Range]) -> Result<(u64, u64), Torn> {
    let residency = Residency::of(resident.iter().cloned());
    let until = Instant::now() + Duration::from_secs(5);
    let (_, tally) = malloc.tally(memory, &residency, until).remove(0);
    tally.map(|tally| (tally.in_use, tally.live_chunks))
}

fn all() -> Vec<Range> {
    std::iter::once(START..START + BYTES).collect()
}

#[test]
fn live_chunks_are_those_whose_neighbour_says_so() {
    let mut heap = Heap::new();
    heap.chunk(0x40, IN_USE);
    heap.chunk(0x1000, IN_USE);
    heap.chunk(0x30, 0);
    let (malloc, memory) = heap.finish([0; 10]);
    assert_eq!(tally(&malloc, &memory, &all()), Ok((0x70, 2)));
    // Of a live chunk only what is resident counts.
    assert_eq!(
        tally(&malloc, &memory, std::slice::from_ref(&(START + 0x20..START + 0x1000))),
        Ok((0x20, 2))
    );
}

#[test]
fn a_fastbin_is_free_with_and_without_scrambled_links() {
    for scrambled in [false, true] {
        let mut heap = Heap::new();
        let first = heap.chunk(0x40, IN_USE);
        let second = heap.chunk(0x40, IN_USE);
        heap.chunk(0x40, IN_USE);
        let link = |from: u64, to: u64| if scrambled { to ^ (from + 16) >> 12 } else { to };
        heap.set(first + 16, link(first, second));
        heap.set(second + 16, link(second, 0));
        let mut fastbins = [0; 10];
        fastbins[2] = first;
        let (malloc, memory) = heap.finish(fastbins);
        assert_eq!(tally(&malloc, &memory, &all()), Ok((0x40, 1)), "scrambled: {scrambled}");
    }
}

#[test]
fn a_circle_of_free_chunks_ends() {
    let mut heap = Heap::new();
    let first = heap.chunk(0x40, IN_USE);
    let second = heap.chunk(0x40, IN_USE);
    heap.set(first + 16, second);
    heap.set(second + 16, first);
    let mut fastbins = [0; 10];
    fastbins[2] = first;
    let (malloc, memory) = heap.finish(fastbins);
    assert_eq!(tally(&malloc, &memory, &all()), Ok((0, 0)));
}

#[test]
fn a_header_that_cannot_be_leaves_the_segment_unsplit() {
    for size in [0x18, 0x8_0000, !7, 8] {
        let mut heap = Heap::new();
        heap.chunk(0x40, IN_USE);
        let bad = heap.chunk(0x40, IN_USE);
        heap.chunk(0x40, IN_USE);
        heap.set(bad + 8, size | IN_USE);
        let (malloc, memory) = heap.finish([0; 10]);
        let torn = tally(&malloc, &memory, &all());
        assert!(matches!(torn, Err(Torn::Contradiction(_))), "{size:#x}: {torn:?}");
    }
}

#[test]
fn headers_that_cannot_be_are_no_mapped_chunks() {
    let ranges = all();
    let residency = Residency::of(all());
    let until = Instant::now() + Duration::from_secs(5);
    for (header, found) in
        [(0x2002, 0x2000), (0x1ff2, 0x2000), (!5, 0), (!0 << 4 | 2, 0), (0x8_0002, 0), (2, 0)]
    {
        let mut heap = Heap::new();
        heap.set(START + 0x3008, header);
        let mut memory = Pieces::default();
        memory.put(START, bytes(&heap.words));
        let seen = mapped_chunks(&memory, &ranges, BYTES, Some(&residency), until);
        assert_eq!(seen.bytes, found, "{header:#x}");
    }
}

#[test]
fn a_walk_without_time_says_so() {
    let mut heap = Heap::new();
    for _ in 0..5000 {
        heap.chunk(0x20, IN_USE);
    }
    let (malloc, memory) = heap.finish([0; 10]);
    let late = Instant::now() - Duration::from_secs(1);
    let (_, tally) = malloc.tally(&memory, &Residency::of(all()), late).remove(0);
    assert_eq!(tally, Err(Torn::Late));
}

/// The C library's data with a main arena whose top chunk is at `top`, and malloc found in it.
fn found_with_top_at(top: u64, maps: &str) -> Option<Glibc> {
    const MAIN: u64 = 0x90_0000;
    const BINS: u64 = MAIN + 112;
    let mut words = vec![0u64; 512];
    let mut set = |address: u64, word| words[((address - MAIN) / 8) as usize] = word;
    for bin in 0..127 {
        set(BINS + bin * 16, BINS + bin * 16 - 16);
        set(BINS + bin * 16 + 8, BINS + bin * 16 - 16);
    }
    let tail = BINS + 127 * 16 + 16;
    set(BINS - 16, top);
    set(tail, MAIN);
    set(tail + 24, BYTES);
    set(tail + 32, BYTES);
    let mut memory = Pieces::default();
    memory.put(MAIN, bytes(&words));
    memory.put(top, bytes(&[0, 0x1000 | IN_USE]));
    let maps = plumb_target::maps::parse(maps.as_bytes()).expect("maps");
    Glibc::find(&memory, std::slice::from_ref(&(MAIN..MAIN + 4096)), &maps)
}

#[test]
fn a_heap_that_grew_since_its_maps_were_read_is_found() {
    let maps = "100000-140000 rw-p 0 00:00 0 [heap]\n200000-300000 rw-p 0 00:00 0 \n";
    for top in [0x13_0000, 0x15_0000] {
        let malloc = found_with_top_at(top, maps).expect("malloc");
        assert_eq!(malloc.segments().next().expect("a segment").range, START..top + 0x1000);
    }
    // Behind the next mapping there is no heap.
    assert_eq!(found_with_top_at(0x31_0000, maps), None);
}

#[test]
fn a_walk_whose_top_chunk_moved_meanwhile_is_made_again() {
    let mut before = Heap::new();
    before.chunk(0x40, IN_USE);
    before.chunk(0x1000, IN_USE);
    let (malloc, _) = before.finish([0; 10]);
    // What was the top chunk is part of a chunk that ends behind the segment.
    let (last, top) = (START + 0x40, START + BYTES + 0x100);
    let mut heap = Heap::new();
    heap.chunk(0x40, IN_USE);
    heap.set(last + 8, (top - last) | IN_USE);
    let mut memory = Pieces::default();
    memory.put(START, bytes(&heap.words));
    memory.put(top, bytes(&[0, 0x1000 | IN_USE]));
    memory.put(malloc.arenas[0].bins - 16, bytes(&[top]));
    assert_eq!(tally(&malloc, &memory, &all()), Ok((BYTES, 2)));
}
