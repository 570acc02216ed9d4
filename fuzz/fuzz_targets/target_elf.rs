//! Any bytes as an ELF file, on disk and in memory: what is said of it, its symbols, its unwind tables, its
//! dynamic section. Nothing may crash, hang or believe a length.
#![no_main]

use std::io::Write as _;
use std::path::Path;

use plumb_target::image::{Dynamic, Elf};
use plumb_target::memory::Pieces;
use plumb_target::symbols::{SymbolTable, demangled};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).unwrap();
    let path = Path::new("any.so");
    if let Ok(elf) = Elf::read(&file, path) {
        elf.offset_of(0x1000);
    }
    if let Ok(symbols) = SymbolTable::read(&file, path) {
        for symbol in symbols.all().iter().take(100) {
            demangled(&symbol.name);
            symbols.at(symbol.address);
        }
    }
    if let Some(elf) = plumb_trace::elf::Elf::read(file) {
        elf.bias(0x7000_0000, 0x1000);
        for at in [0, elf.base(), elf.base().wrapping_add(0x1000)] {
            elf.has_table(at);
        }
    }
    plumb_trace::elf::Elf::parse(bytes);

    const BASE: u64 = 0x1_0000;
    let mut memory = Pieces::default();
    memory.put(BASE, bytes.to_vec());
    let dynamic = Dynamic::at(&memory, &(BASE..BASE + bytes.len() as u64));
    dynamic.definitions(&memory, "malloc");
    dynamic.slots(&memory, |name| name == b"malloc");
});
