//! What an ELF file tells the dynamic linker: what it needs, what it defines, which slots it wants
//! filled in. By the System V ABI (chapter 5), its x86-64 supplement and the GNU hash table's
//! layout; works on files without section headers.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::elf::{
    DT_GNU_HASH, DT_HASH, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_STRSZ,
    DT_STRTAB, DT_SYMTAB, R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, SHN_UNDEF,
    STT_GNU_IFUNC,
};

use super::Elf;
use crate::{Range, ReadMemory, memory};

/// A file's bytes at the addresses it is linked to.
#[derive(Debug)]
pub struct FileView<'a> {
    file: &'a File,
    elf: &'a Elf,
}

impl<'a> FileView<'a> {
    /// The bytes of `file`, placed as `elf`, its headers, say.
    pub fn new(file: &'a File, elf: &'a Elf) -> Self {
        Self { file, elf }
    }
}

impl ReadMemory for FileView<'_> {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let load = self.elf.loads.iter().find(|load| {
            address.checked_sub(load.address).is_some_and(|into| into < load.file_size)
        });
        let Some(load) = load else { return 0 };
        let into = address - load.address;
        let length = (load.file_size - into).min(out.len() as u64) as usize;
        let Some(offset) = load.offset.checked_add(into) else { return 0 };
        match self.file.read_exact_at(&mut out[..length], offset) {
            Ok(()) => length,
            Err(_) => 0,
        }
    }
}

/// Where the tables of a file are. All addresses are the file's own.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dynamic {
    /// The libraries it is linked to (`DT_NEEDED`), in order.
    pub needed: Vec<String>,
    symbols: u64,
    strings: Range,
    gnu_hash: Option<u64>,
    hash: Option<u64>,
    relocations: [Range; 2],
}

/// A definition that others can bind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The file's address.
    pub address: u64,
    /// Whether the address is that of a resolver, which chooses the function (`STT_GNU_IFUNC`).
    pub is_indirect: bool,
}

/// One thing that the dynamic linker writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Where, at the file's address.
    pub address: u64,
    /// `R_X86_64_…`.
    pub kind: u32,
    /// Index into the symbol table, 0 for none.
    pub symbol: u32,
}

/// How a slot is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// For calls; may be filled in at the first call.
    Call,
    /// The function's address, in the global offset table.
    Address,
    /// A pointer in data, which the program may assign to.
    Pointer,
}

/// A place that holds the address of a named symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Where, at the file's address.
    pub address: u64,
    /// How it is used.
    pub kind: SlotKind,
    /// The symbol that it is for.
    pub name: String,
    /// In a non-PIE executable: the PLT entry that stands for the function's address in the whole
    /// process, at the file's address.
    pub stand_in: Option<u64>,
}

/// Strings, symbols and relocations of the largest libraries are some hundred megabytes.
const MAX_TABLE: u64 = 512 << 20;
const MAX_ENTRIES: usize = 4096;
const MAX_CHAIN: u32 = 1 << 16;
const SYMBOL: u64 = 24;
const RELOCATION: u64 = 24;

impl Dynamic {
    /// Reads the dynamic section of a file. What is not understood is left empty.
    pub fn read(memory: &impl ReadMemory, elf: &Elf) -> Self {
        Self::at(memory, &elf.dynamic)
    }

    /// Reads a dynamic section at `section`.
    pub fn at(memory: &impl ReadMemory, section: &Range) -> Self {
        let mut found = Self::default();
        let (mut sizes, mut needed) = ([0; 2], Vec::new());
        let count = ((section.end - section.start) / 16).min(MAX_ENTRIES as u64) as usize;
        let words = memory.words_at(section.start, count * 2).unwrap_or_default();
        for entry in words.chunks_exact(2).take_while(|e| e[0] != u64::from(DT_NULL)) {
            match u32::try_from(entry[0]) {
                Ok(DT_NEEDED) => needed.push(entry[1]),
                Ok(DT_SYMTAB) => found.symbols = entry[1],
                Ok(DT_STRTAB) => found.strings.start = entry[1],
                Ok(DT_STRSZ) => found.strings.end = entry[1],
                Ok(DT_GNU_HASH) => found.gnu_hash = Some(entry[1]),
                Ok(DT_HASH) => found.hash = Some(entry[1]),
                Ok(DT_RELA) => found.relocations[0].start = entry[1],
                Ok(DT_RELASZ) => sizes[0] = entry[1],
                Ok(DT_JMPREL) => found.relocations[1].start = entry[1],
                Ok(DT_PLTRELSZ) => sizes[1] = entry[1],
                _ => {}
            }
        }
        for (range, size) in found.relocations.iter_mut().zip(sizes) {
            range.end = range.start.saturating_add(size.min(MAX_TABLE));
        }
        found.strings.end = found.strings.start.saturating_add(found.strings.end.min(MAX_TABLE));
        let names = needed.iter().filter_map(|&at| found.string(memory, at));
        found.needed = names.map(|n| String::from_utf8_lossy(&n).into_owned()).collect();
        found
    }

    fn string(&self, memory: &impl ReadMemory, at: u64) -> Option<Vec<u8>> {
        const LONGEST: u64 = 4096;
        let address = self.strings.start.checked_add(at)?;
        let room = self.strings.end.checked_sub(address)?.min(LONGEST);
        memory.c_string_at(address, room as usize)
    }

    /// The definitions of `name`: several where it has several versions.
    pub fn definitions(&self, memory: &impl ReadMemory, name: &str) -> Vec<Definition> {
        let indices = self
            .gnu_hash
            .and_then(|table| gnu_candidates(memory, table, name.as_bytes()))
            .or_else(|| sysv_candidates(memory, self.hash?, name.as_bytes()))
            .unwrap_or_default();
        let defined = indices.into_iter().filter_map(|index| {
            let symbol = Symbol::read(memory, self.symbols, index)?;
            let same = self.string(memory, u64::from(symbol.name))? == name.as_bytes();
            (same && symbol.section != SHN_UNDEF).then_some(Definition {
                address: symbol.value,
                is_indirect: symbol.info & 0xf == STT_GNU_IFUNC,
            })
        });
        let mut found: Vec<Definition> = defined.collect();
        found.dedup();
        found
    }

    /// Calls `each` for every relocation, in the file's order.
    pub fn relocations(&self, memory: &impl ReadMemory, mut each: impl FnMut(Relocation)) {
        const A_PIECE: u64 = 32768;
        for table in &self.relocations {
            let mut at = table.start;
            while at < table.end {
                let count = ((table.end - at) / RELOCATION).min(A_PIECE);
                let words = memory.words_at(at, (count * 3) as usize).unwrap_or_default();
                if words.is_empty() {
                    break;
                }
                for entry in words.chunks_exact(3) {
                    let (kind, symbol) = (entry[1] as u32, (entry[1] >> 32) as u32);
                    each(Relocation { address: entry[0], kind, symbol });
                }
                at += count * RELOCATION;
            }
        }
    }

    /// The slots for symbols whose names are `wanted`.
    pub fn slots(&self, memory: &impl ReadMemory, wanted: impl Fn(&[u8]) -> bool) -> Vec<Slot> {
        let mut named = Vec::new();
        self.relocations(memory, |r| {
            let kind = match r.kind {
                R_X86_64_JUMP_SLOT => SlotKind::Call,
                R_X86_64_GLOB_DAT => SlotKind::Address,
                R_X86_64_64 => SlotKind::Pointer,
                _ => return,
            };
            if r.symbol != 0 {
                named.push((r.address, kind, r.symbol));
            }
        });
        let Some(last) = named.iter().map(|&(_, _, symbol)| symbol).max() else {
            return Vec::new();
        };
        let symbols = table(memory, self.symbols, (u64::from(last) + 1) * SYMBOL);
        let strings = table(memory, self.strings.start, self.strings.end - self.strings.start);
        let slot = |(address, kind, index): (u64, SlotKind, u32)| {
            let symbol = Symbol::parse(symbols.get(index as usize * SYMBOL as usize..)?)?;
            let name = strings.get(symbol.name as usize..)?;
            // Bounded, so that strings without an end cost nothing.
            let name = &name[..name.len().min(64)];
            let name = &name[..name.iter().position(|&b| b == 0)?];
            let stands = symbol.section == SHN_UNDEF && symbol.value != 0;
            wanted(name).then(|| Slot {
                address,
                kind,
                name: String::from_utf8_lossy(name).into_owned(),
                stand_in: stands.then_some(symbol.value),
            })
        };
        named.into_iter().filter_map(slot).collect()
    }
}

fn table(memory: &impl ReadMemory, address: u64, length: u64) -> Vec<u8> {
    if length > MAX_TABLE {
        return Vec::new();
    }
    let mut bytes = vec![0; length as usize];
    let got = memory.read_at(address, &mut bytes);
    bytes.truncate(got);
    bytes
}

struct Symbol {
    name: u32,
    info: u8,
    section: u16,
    value: u64,
}

impl Symbol {
    fn read(memory: &impl ReadMemory, symbols: u64, index: u32) -> Option<Self> {
        let mut bytes = [0; SYMBOL as usize];
        memory.read_exact(symbols.checked_add(u64::from(index) * SYMBOL)?, &mut bytes)?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            name: u32::from_le_bytes(*bytes.first_chunk()?),
            info: *bytes.get(4)?,
            section: u16::from_le_bytes(*bytes.get(6..)?.first_chunk()?),
            value: *memory::words(bytes.get(8..16)?).first()?,
        })
    }
}

/// Indices of the symbols whose hash is that of `name`: buckets, then chains whose last entry is
/// odd; the lowest bit of a hash is left out.
fn gnu_candidates(memory: &impl ReadMemory, at: u64, name: &[u8]) -> Option<Vec<u32>> {
    let hash = name.iter().fold(5381u32, |h, &b| h.wrapping_mul(33).wrapping_add(b.into()));
    let (buckets, first) = (memory.u32_at(at)?, memory.u32_at(at.checked_add(4)?)?);
    let bloom = u64::from(memory.u32_at(at.checked_add(8)?)?) * 8;
    if buckets == 0 {
        return Some(Vec::new());
    }
    let table = at.checked_add(16 + bloom)?;
    let chains = table.checked_add(u64::from(buckets) * 4)?;
    let mut index = memory.u32_at(table.checked_add(u64::from(hash % buckets) * 4)?)?;
    let mut found = Vec::new();
    for _ in 0..MAX_CHAIN {
        let Some(place) = index.checked_sub(first) else { break };
        let there = memory.u32_at(chains.checked_add(u64::from(place) * 4)?)?;
        if there | 1 == hash | 1 {
            found.push(index);
        }
        if there & 1 == 1 {
            break;
        }
        index = index.checked_add(1)?;
    }
    Some(found)
}

/// Indices of the symbols in the bucket of `name`, by the ABI's own hash table.
fn sysv_candidates(memory: &impl ReadMemory, at: u64, name: &[u8]) -> Option<Vec<u32>> {
    let hash = name.iter().fold(0u32, |h, &b| {
        let h = (h << 4).wrapping_add(b.into());
        (h ^ (h & 0xf000_0000) >> 24) & 0x0fff_ffff
    });
    let buckets = memory.u32_at(at)?;
    if buckets == 0 {
        return Some(Vec::new());
    }
    let word = |index: u64| memory.u32_at(at.checked_add(index.checked_mul(4)?)?);
    let mut index = word(2 + u64::from(hash % buckets))?;
    let mut found = Vec::new();
    while index != 0 && found.len() < MAX_CHAIN as usize {
        found.push(index);
        index = word(2 + u64::from(buckets) + u64::from(index))?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Process, image, maps};

    fn own(name: &str) -> image::Image {
        let own = Process::own();
        let maps = maps::read(&own).unwrap();
        let all = image::images(&own, &maps);
        all.into_iter().find(|image| image.name().starts_with(name)).expect("loaded")
    }

    #[test]
    fn finds_definitions_as_the_symbol_table_has_them() {
        let libc = own("libc.so");
        let file = libc.open().unwrap();
        let view = FileView::new(&file, &libc.elf);
        let dynamic = Dynamic::read(&view, &libc.elf);
        let symbols = libc.symbols().unwrap();
        for name in ["malloc", "munmap", "mmap64", "sbrk", "memcpy"] {
            let found = dynamic.definitions(&view, name);
            let expected = symbols.named(name).expect(name);
            assert!(found.iter().any(|d| d.address == expected.address), "{name}: {found:?}");
            let by_old_table = Dynamic { gnu_hash: None, ..dynamic.clone() };
            if dynamic.hash.is_some() {
                assert_eq!(by_old_table.definitions(&view, name).len(), found.len());
            }
        }
        assert!(dynamic.definitions(&view, "memcpy").iter().any(|d| d.is_indirect));
        assert_eq!(dynamic.definitions(&view, "no_such_function"), []);
    }

    #[test]
    fn a_slot_of_our_own_holds_the_function() {
        let name = std::env::current_exe().unwrap();
        let image = own(&name.file_name().unwrap().to_string_lossy());
        let file = image.open().unwrap();
        let view = FileView::new(&file, &image.elf);
        let dynamic = Dynamic::read(&view, &image.elf);
        assert!(dynamic.needed.iter().any(|n| n.starts_with("libc.so")));
        let slots = dynamic.slots(&view, |name| name == b"malloc");
        let memory = crate::Memory::open(&Process::own()).unwrap();
        let slot = slots.first().expect("a slot for malloc");
        let holds = memory.u64_at(image.bias + slot.address).unwrap();
        assert_eq!(holds, libc::malloc as *const () as u64);
    }

    #[test]
    fn tables_that_lie_end() {
        let mut hostile = memory::Pieces::default();
        // One bucket, symbols from 0, and chains that never end.
        hostile.put(0x1000, [1u32, 0, 0, 0, 1].iter().flat_map(|w| w.to_le_bytes()).collect());
        hostile.put(0x1014, vec![0; 64]);
        assert_eq!(gnu_candidates(&hostile, 0x1000, b"malloc"), None);
        // A chain of the old table that points at itself.
        let words = [1u32, 2, 1, 0, 1];
        hostile.put(0x2000, words.iter().flat_map(|w| w.to_le_bytes()).collect());
        let found = sysv_candidates(&hostile, 0x2000, b"malloc").unwrap();
        assert_eq!(found.len(), MAX_CHAIN as usize);
    }
}
