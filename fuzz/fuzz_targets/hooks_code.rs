//! Any bytes as code that somebody patched: the walk to where it leads ends, and nowhere else than there.
#![no_main]

use plumb_target::memory::Pieces;

const BASE: u64 = 0x40_0000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [at, length, code @ ..] = bytes else { return };
    let mut memory = Pieces::default();
    memory.put(BASE, code.to_vec());
    let range = BASE..BASE + code.len() as u64;
    let start = BASE + u64::from(*at);
    let changed = start..start + u64::from(*length).max(1);
    let target = plumb_hooks::leads_to(&memory, start, &changed, |at| range.contains(&at));
    assert!(target.is_none_or(|target| !range.contains(&target)));
});
