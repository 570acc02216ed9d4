//! Any bytes as Go's table of functions, and as symbols that were left in a file compressed.
#![no_main]

use plumb_target::ReadMemory;
use plumb_target::go_names::GoNames;
use plumb_target::symbols::SymbolTable;

struct Bytes<'a>(&'a [u8]);

impl ReadMemory for Bytes<'_> {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let start = usize::try_from(address).unwrap_or(usize::MAX).min(self.0.len());
        let n = (self.0.len() - start).min(out.len());
        out[..n].copy_from_slice(&self.0[start..start + n]);
        n
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(names) = GoNames::parse(Bytes(bytes), || Some(0x40_1000)) {
        for address in [0, 0x40_1000, 0x40_2000, u64::MAX] {
            names.at(address);
        }
    }
    SymbolTable::parse_compressed(bytes);
});
