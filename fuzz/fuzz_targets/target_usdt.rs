//! Any bytes as the notes that tell of a program's own probes, and as their arguments.
#![no_main]

use plumb_target::usdt::parse;
use plumb_trace::usdt::pack;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for note in parse(bytes) {
        pack(&note.texts[2], 3);
    }
    pack(&String::from_utf8_lossy(bytes), 3);
});
