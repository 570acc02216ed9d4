//! Any bytes as the memory of a process whose heaps, arenas and stacks are walked. Nothing may hang,
//! crash or count more than is resident.
#![no_main]

use std::time::{Duration, Instant};

use plumb_target::glibc::{Arena, Glibc, Segment, mapped_chunks, stack_blocks};
use plumb_target::memory::Pieces;
use plumb_target::{Residency, maps, mimalloc, musl, python};

/// Addresses within the image, so that what is read as a pointer leads somewhere.
const BASE: u64 = 0x1_0000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let length = (bytes.len() as u64).next_multiple_of(4096);
    if length == 0 || length > 1 << 20 {
        return;
    }
    let range = BASE..BASE + length;
    let mut memory = Pieces::default();
    memory.put(BASE, bytes.to_vec());
    let line = format!("{:x}-{:x} rw-p 0 00:00 0 [heap]\n", range.start, range.end);
    let heap = maps::parse(line.as_bytes()).unwrap();
    let plain = maps::parse(line.replace("[heap]", "").as_bytes()).unwrap();
    let data = std::slice::from_ref(&range);
    let residency = Residency::of([range.clone()]);
    let until = Instant::now() + Duration::from_secs(5);

    let top = range.end - 64..range.end;
    let segment = Segment { range: range.clone(), first_chunk: BASE, top: Some(top.clone()) };
    let arena = Arena {
        address: BASE,
        bins: BASE + 112,
        top,
        system_bytes: length,
        segments: vec![segment],
    };
    let made = Glibc { arenas: vec![arena], params: None };
    for malloc in Glibc::find(&memory, data, &heap).into_iter().chain([made]) {
        for (_, tally) in malloc.tally(&memory, &residency, until) {
            if let Ok(tally) = tally {
                assert!(tally.in_use <= residency.total());
            }
        }
        malloc.cached(&memory, until);
    }
    let mapped = mapped_chunks(&memory, data, length, Some(&residency), until);
    assert!(mapped.bytes <= length);
    for minor in [9, 13] {
        let arenas = python::find(&memory, data, &plain, minor).unwrap_or_default();
        python::usage(&memory, &arenas, &residency, until);
    }
    stack_blocks(&memory, data, &plain);
    for live in [
        mimalloc::find(&memory, data, &plain).in_use(&memory, &residency, until),
        musl::find(&memory, data, &plain).in_use(&memory, &residency, until),
    ] {
        let each = live.unwrap_or_default();
        assert!(each.iter().all(|bytes| *bytes <= residency.total()));
    }
    assert!(Instant::now() < until, "it took too long");
});
