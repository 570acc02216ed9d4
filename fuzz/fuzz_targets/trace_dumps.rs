//! Any bytes as a heap profile that an allocator wrote.
#![no_main]

use plumb_trace::dumps::Dump;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(dump) = Dump::parse(bytes) else { return };
    assert!(dump.since(&dump).is_empty());
    for (_, more) in dump.since(&Dump::default()) {
        assert!(more.bytes > 0.0 && !more.count.is_nan());
    }
});
