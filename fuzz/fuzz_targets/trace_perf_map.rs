//! Any bytes as the map that a JIT compiler leaves for perf.
#![no_main]

use plumb_trace::symbols::PerfMap;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let map = PerfMap::parse(bytes);
    for word in bytes.as_chunks::<8>().0 {
        map.find(u64::from_le_bytes(*word));
    }
});
