//! Names of Go's functions, from the table that its runtime keeps for itself: also in a stripped program.
//!
//! The table (`.gopclntab`) is searched where it lies: it may be tens of megabytes, and few names are
//! asked for. Its form is that of `runtime/symtab.go`: from Go 1.2, 1.16, and 1.18 on.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::read::elf::ElfFile64;
use object::read::{ReadCache, ReadRef};
use object::{LittleEndian, Object, ObjectSection, RelocationTarget};

use crate::ReadMemory;

/// A part of a file, read where it lies.
#[derive(Debug)]
pub struct Part {
    file: File,
    offset: u64,
    bytes: u64,
}

impl ReadMemory for Part {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let left = self.bytes.saturating_sub(address).min(out.len() as u64) as usize;
        self.file.read_at(&mut out[..left], self.offset.saturating_add(address)).unwrap_or(0)
    }
}

/// The table of one program.
#[derive(Debug)]
pub struct GoNames<R = Part> {
    table: R,
    functions: u64,
    /// Where the list of functions begins, their records, and their names.
    list: u64,
    names: u64,
    /// What entries are counted from; `None` where they are addresses.
    text: Option<u64>,
}

/// More functions than that no program has.
const FUNCTIONS_MAX: u64 = 1 << 24;
/// A longer name is none, in bytes.
const NAME_MAX: usize = 4096;
/// Sections without the table's own name are looked through for it up to this size, in bytes.
const SCANNED_MAX: u64 = 256 << 20;

const GO_1_2: u32 = 0xffff_fffb;
const GO_1_16: u32 = 0xffff_fffa;
const GO_1_18: u32 = 0xffff_fff0;
const GO_1_20: u32 = 0xffff_fff1;
/// Where the header says where the text begins, since Go 1.18.
const TEXT: u64 = 24;

impl<R: ReadMemory> GoNames<R> {
    /// Understands a table; `text` says where the text begins where the table does not.
    pub fn parse(table: R, text: impl FnOnce() -> Option<u64>) -> Option<Self> {
        const OLD_HEADER: u64 = 16;
        let functions = table.u64_at(8).filter(|n| (1..=FUNCTIONS_MAX).contains(n))?;
        let names = match version(&table)? {
            GO_1_2 => {
                return Some(Self { table, functions, list: OLD_HEADER, names: 0, text: None });
            }
            GO_1_16 => {
                let (names, list) = (table.u64_at(24)?, table.u64_at(56)?);
                return Some(Self { table, functions, list, names, text: None });
            }
            _ => table.u64_at(32)?,
        };
        let list = table.u64_at(64)?;
        let stated = table.u64_at(TEXT).filter(|at| *at != 0);
        let text = Some(stated.or_else(text)?);
        Some(Self { table, functions, list, names, text })
    }

    /// The function that holds an address, as the file states addresses.
    pub fn at(&self, address: u64) -> Option<String> {
        // The list has one entry more: where the last function ends.
        if address < self.entry(0)?.0 || address >= self.entry(self.functions)?.0 {
            return None;
        }
        let (mut low, mut high) = (0, self.functions);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.entry(middle)?.0 <= address { low = middle } else { high = middle }
        }
        let record = self.entry(low)?.1;
        // Go 1.2's records are counted from the table, later ones from the list.
        let old = self.names == 0;
        let record = if old { record } else { self.list.checked_add(record)? };
        let entry = if self.text.is_some() { 4 } else { 8 };
        let name = self.table.u32_at(record.checked_add(entry)?)?;
        self.name(self.names.checked_add(u64::from(name))?)
    }

    /// Where a function begins, and where its record is.
    fn entry(&self, index: u64) -> Option<(u64, u64)> {
        let size = if self.text.is_some() { 4 } else { 8 };
        let at = self.list.checked_add(index * 2 * size)?;
        let end = index == self.functions;
        match self.text {
            Some(text) => {
                let record = if end { 0 } else { self.table.u32_at(at.checked_add(4)?)? };
                Some((text.checked_add(u64::from(self.table.u32_at(at)?))?, u64::from(record)))
            }
            None => {
                let record = if end { 0 } else { self.table.u64_at(at.checked_add(8)?)? };
                Some((self.table.u64_at(at)?, record))
            }
        }
    }

    fn name(&self, at: u64) -> Option<String> {
        let name = self.table.c_string_at(at, NAME_MAX).filter(|name| !name.is_empty())?;
        Some(String::from_utf8_lossy(&name).into_owned())
    }
}

/// Which form a table has. Of 64-bit machines alone.
fn version(table: &impl ReadMemory) -> Option<u32> {
    let mut head = [0; 8];
    table.read_exact(0, &mut head)?;
    let [a, b, c, d, 0, 0, quantum, 8] = head else { return None };
    let magic = u32::from_le_bytes([a, b, c, d]);
    let known = [GO_1_2, GO_1_16, GO_1_18, GO_1_20].contains(&magic);
    (known && matches!(quantum, 1 | 2 | 4)).then_some(magic)
}

impl GoNames {
    /// The table of a program; `None` where it has none.
    pub fn read(file: &File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let elf = ElfFile64::<LittleEndian, _>::parse(&cache).ok()?;
        let (offset, bytes, address) = find(&elf, file)?;
        let part = Part { file: file.try_clone().ok()?, offset, bytes };
        Self::parse(part, || text_of(&elf, file, address))
    }
}

type Place = (u64, u64, u64);

/// Where the table lies: place in the file, size, address.
fn find<'a, R: ReadRef<'a>>(elf: &ElfFile64<'a, LittleEndian, R>, file: &File) -> Option<Place> {
    let place = |s: &object::read::elf::ElfSection64<'a, '_, LittleEndian, R>| {
        let (offset, bytes) = s.file_range()?;
        Some((offset, bytes, s.address()))
    };
    let named = |s: &object::read::elf::ElfSection64<'a, '_, LittleEndian, R>| {
        s.name().is_ok_and(|name| name.ends_with("gopclntab"))
    };
    if let Some(section) = elf.sections().find(named) {
        return place(&section);
    }
    // A linker may have put it among others.
    let kept = [".data.rel.ro", ".rodata"].into_iter().filter_map(|n| elf.section_by_name(n));
    kept.filter_map(|s| place(&s)).find_map(|(offset, bytes, address)| {
        let at = scan(file, offset, bytes.min(SCANNED_MAX))?;
        Some((offset + at, bytes - at, address + at))
    })
}

/// Where in a section a table begins.
fn scan(file: &File, offset: u64, bytes: u64) -> Option<u64> {
    const PIECE: usize = 1 << 20;
    let mut piece = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        let length = (bytes - at).min(PIECE as u64) as usize;
        file.read_exact_at(&mut piece[..length], offset.checked_add(at)?).ok()?;
        for (i, word) in piece[..length].chunks_exact(8).enumerate() {
            if !matches!(word, [_, 0xff, 0xff, 0xff, 0, 0, 1 | 2 | 4, 8]) {
                continue;
            }
            let begin = at + 8 * i as u64;
            let table =
                Part { file: file.try_clone().ok()?, offset: offset + begin, bytes: bytes - begin };
            // Any eight bytes may look like a header: its places must lie in it.
            let is_whole = GoNames::parse(table, || Some(1))
                .is_some_and(|names| names.entry(names.functions).is_some());
            if is_whole {
                return Some(begin);
            }
        }
    }
    None
}

/// Where the text begins, where the header says nothing: what the linker leaves to relocate there, or, since
/// Go 1.26, what the module's own record says.
fn text_of<'a, R: ReadRef<'a>>(
    elf: &ElfFile64<'a, LittleEndian, R>,
    file: &File,
    table: u64,
) -> Option<u64> {
    /// The word of the record that says it, the same since the table has a header.
    const WORD: u64 = 22;
    let relocated = |at: u64| {
        let mut all = elf.dynamic_relocations()?;
        let (_, found) = all.find(|(place, _)| *place == at)?;
        let is_plain = found.target() == RelocationTarget::Absolute;
        is_plain.then(|| found.addend().cast_unsigned()).filter(|at| *at != 0)
    };
    relocated(table.checked_add(TEXT)?).or_else(|| {
        let record = elf.section_by_name(".go.module")?;
        let (offset, _) = record.file_range()?;
        let mut word = [0; 8];
        file.read_exact_at(&mut word, offset.checked_add(8 * WORD)?).ok()?;
        let stated = Some(u64::from_le_bytes(word)).filter(|at| *at != 0);
        stated.or_else(|| relocated(record.address().checked_add(8 * WORD)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl ReadMemory for Bytes {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            let from = self.0.get(address as usize..).unwrap_or_default();
            let n = from.len().min(out.len());
            out[..n].copy_from_slice(&from[..n]);
            n
        }
    }

    const FUNCTIONS: [(u64, &str); 3] =
        [(0x1000, "runtime.text"), (0x1040, "main.keepRequest"), (0x10c0, "main.main")];
    const END: u64 = 0x1100;

    /// A table as the linker of a version writes it.
    fn table(magic: u32, text: u64) -> Vec<u8> {
        let word: u64 = if magic >= GO_1_16 || magic == GO_1_2 { 8 } else { 4 };
        let mut names = vec![0];
        let mut offsets = Vec::new();
        for (_, name) in FUNCTIONS {
            offsets.push(names.len() as u64);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        let header: u64 = match magic {
            GO_1_2 => 16,
            GO_1_16 => 64,
            _ => 72,
        };
        let old = magic == GO_1_2;
        // Go 1.2 counts everything from the table; later ones have names first, then the list.
        let list = if old { header } else { header + names.len() as u64 };
        let records = list + (2 * FUNCTIONS.len() as u64 + 1) * word;
        let records_end = records + FUNCTIONS.len() as u64 * (word + 4);
        let names_at = if old { records_end } else { header };
        let mut out = magic.to_le_bytes().to_vec();
        out.extend([0, 0, 1, 8]);
        let mut words = vec![FUNCTIONS.len() as u64];
        match magic {
            GO_1_2 => {}
            GO_1_16 => words.extend([0, names_at, 0, 0, 0, list]),
            _ => words.extend([0, text, names_at, 0, 0, 0, list]),
        }
        out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        let number = |n: u64| n.to_le_bytes()[..word as usize].to_vec();
        let entry = |at: u64| number(if word == 4 { at - 0x1000 } else { at });
        if !old {
            out.extend(&names);
        }
        for (i, (at, _)) in FUNCTIONS.iter().enumerate() {
            let record = records + i as u64 * (word + 4);
            out.extend(entry(*at));
            out.extend(number(if old { record } else { record - list }));
        }
        out.extend(entry(END));
        for ((at, _), name) in FUNCTIONS.iter().zip(&offsets) {
            let name = if old { names_at + name } else { *name };
            out.extend(entry(*at));
            out.extend((name as u32).to_le_bytes());
        }
        if old {
            out.extend(&names);
        }
        out
    }

    #[test]
    fn functions_of_every_version_have_their_names() {
        for magic in [GO_1_2, GO_1_16, GO_1_18, GO_1_20] {
            let names = GoNames::parse(Bytes(table(magic, 0x1000)), || None).expect("a table");
            let at = |address| names.at(address);
            assert_eq!(at(0x1040).as_deref(), Some("main.keepRequest"), "{magic:#x}");
            assert_eq!(at(0x10bf).as_deref(), Some("main.keepRequest"));
            assert_eq!(at(END - 1).as_deref(), Some("main.main"));
            assert_eq!((at(0xfff), at(END)), (None, None), "{magic:#x}");
        }
    }

    #[test]
    fn text_that_the_table_does_not_state_is_asked_for() {
        let bytes = || Bytes(table(GO_1_20, 0));
        let names = GoNames::parse(bytes(), || Some(0x1000)).expect("a table");
        assert_eq!(names.at(0x10c0).as_deref(), Some("main.main"));
        assert!(GoNames::parse(bytes(), || None).is_none());
    }

    #[test]
    fn a_table_that_is_cut_off_names_nothing() {
        let whole = table(GO_1_18, 0x1000);
        for length in 0..whole.len() {
            let cut = Bytes(whole[..length].to_vec());
            let Some(names) = GoNames::parse(cut, || None) else { continue };
            assert_eq!(names.at(0x10c0), None, "{length} bytes");
        }
    }
}
