//! Bytes of a stranger on the KV side channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plumb_kv::transfer::fuzz_frames(bytes));
