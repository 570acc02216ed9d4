//! Names and addresses of an ELF file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use lzma_rust2::XzReader;

use object::read::elf::{
    ElfFile64, FileHeader, SectionHeader, SectionTable, Sym, SymbolTable as Raw,
};
use object::read::{ReadCache, ReadRef};
use object::{LittleEndian, Object, ObjectSection, elf};

use crate::Error;

/// Compressed symbols, and what they unpack to, are read up to this size, in bytes: those of the largest
/// programs take a few megabytes.
const DEBUG_DATA_MAX: u64 = 64 << 20;
/// Names of a file are read up to this size, in bytes.
const NAMES_MAX: u64 = 512 << 20;
/// What unpacking may take: `xz -9` needs 65 MiB.
const UNPACK_KIB_MAX: u32 = 80 << 10;

/// A name as a person writes it. One that no compiler mangled stays as it is: demanglers take the C
/// function `w` for a type.
pub fn demangled(name: &str) -> String {
    // Deep nesting makes a demangler dear; names this long are not worth it.
    const LONGEST: usize = 4096;
    let name = without_clone(name);
    if !["_Z", "__Z", "_R"].iter().any(|mark| name.starts_with(mark)) || name.len() > LONGEST {
        return name.to_owned();
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let cpp = cpp_demangle::Symbol::new(name).ok().and_then(|s| s.demangle().ok());
    cpp.unwrap_or_else(|| name.to_owned())
}

/// Without the marks of a copy or a part that a compiler made of a function: `grow.constprop.0`.
fn without_clone(name: &str) -> &str {
    const MARKS: [&str; 6] = [".constprop.", ".isra.", ".part.", ".cold", ".lto_priv.", ".llvm."];
    let cut = MARKS.iter().filter_map(|mark| name.find(mark)).filter(|at| *at > 0).min();
    cut.map_or(name, |at| &name[..at])
}

/// One function or variable of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its name as in the file: mangled, without a version.
    pub name: String,
    /// The file's virtual address.
    pub address: u64,
    /// Size in bytes, 0 where the file does not say.
    pub size: u64,
    /// Whether it is code; an indirect function (`STT_GNU_IFUNC`) is code: its resolver.
    pub is_function: bool,
    /// Whether it is an indirect function: the address is its resolver's.
    pub is_indirect: bool,
    /// Whether other images can bind to it (in `.dynsym`, global or weak).
    pub is_exported: bool,
}

/// The defined symbols of one file, by address and by name. One address may have several.
#[derive(Debug, Default)]
pub struct SymbolTable {
    symbols: Vec<Symbol>,
    by_name: HashMap<String, usize>,
}

impl SymbolTable {
    /// Reads `.symtab` and `.dynsym`.
    ///
    /// # Errors
    /// [`Error::Elf`] where the file cannot be parsed.
    pub fn read(file: &File, path: &Path) -> Result<Self, Error> {
        Self::parse(&ReadCache::new(file))
            .map_err(|e| Error::Elf { path: path.to_owned(), reason: e.to_string() })
    }

    fn parse<'a, R: ReadRef<'a>>(data: R) -> object::Result<Self> {
        let parsed = ElfFile64::<LittleEndian, _>::parse(data)?;
        let sections = parsed.elf_section_table();
        let mut all = symbols(data, sections, parsed.elf_dynamic_symbol_table(), true);
        all.extend(symbols(data, sections, parsed.elf_symbol_table(), false));
        Ok(Self::of(all))
    }

    /// The symbols that distributions leave in a stripped file, compressed (`.gnu_debugdata`): of the
    /// functions that `.dynsym` has not. `None` where there are none.
    pub fn read_compressed(file: &File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let parsed = ElfFile64::<LittleEndian, _>::parse(&cache).ok()?;
        let section = parsed.section_by_name(".gnu_debugdata")?;
        let small = section.size() <= DEBUG_DATA_MAX;
        Self::parse_compressed(small.then(|| section.data().ok()).flatten()?)
    }

    /// The same, of the section's bytes.
    pub fn parse_compressed(bytes: &[u8]) -> Option<Self> {
        let mut image = Vec::new();
        let xz = XzReader::new_mem_limit(bytes, false, UNPACK_KIB_MAX);
        xz.take(DEBUG_DATA_MAX).read_to_end(&mut image).ok()?;
        Self::parse(image.as_slice()).ok()
    }

    fn of(mut symbols: Vec<Symbol>) -> Self {
        symbols.sort_by(|a, b| {
            (a.address, &a.name, !a.is_exported).cmp(&(b.address, &b.name, !b.is_exported))
        });
        symbols.dedup_by(|b, a| a.address == b.address && a.name == b.name);
        let mut by_name: HashMap<String, usize> = HashMap::with_capacity(symbols.len());
        for (index, symbol) in symbols.iter().enumerate() {
            let slot = by_name.entry(symbol.name.clone()).or_insert(index);
            if symbol.is_exported && !symbols[*slot].is_exported {
                *slot = index;
            }
        }
        Self { symbols, by_name }
    }

    /// Takes in the symbols of a separate debug file.
    pub fn merge(&mut self, other: Self) {
        let mut symbols = std::mem::take(&mut self.symbols);
        symbols.extend(other.symbols);
        *self = Self::of(symbols);
    }

    /// All symbols, in order of address.
    pub fn all(&self) -> &[Symbol] {
        &self.symbols
    }

    /// The symbol of that name; of several, one that is exported.
    pub fn named(&self, name: &str) -> Option<&Symbol> {
        self.by_name.get(name).map(|&index| &self.symbols[index])
    }

    /// All symbols that start at `address`: aliases of one thing.
    pub fn starting_at(&self, address: u64) -> &[Symbol] {
        let from = self.symbols.partition_point(|s| s.address < address);
        let to = self.symbols.partition_point(|s| s.address <= address);
        &self.symbols[from..to]
    }

    /// The symbol that holds `address` and how far into it. A symbol without a size reaches to the
    /// next one. Exported names go before local ones, functions before data.
    pub fn at(&self, address: u64) -> Option<(&Symbol, u64)> {
        let mut before = self.symbols.partition_point(|s| s.address <= address);
        // Nested and sized symbols: look a little way back, not through the whole file.
        for back in 0..64 {
            let start = self.symbols.get(before.checked_sub(1)?)?.address;
            let here = self.starting_at(start);
            let holds = |s: &&Symbol| s.size == 0 && back == 0 || address - start < s.size;
            let best = here.iter().filter(holds).max_by_key(|s| (s.is_exported, s.is_function));
            if let Some(symbol) = best {
                return Some((symbol, address - start));
            }
            before = self.symbols.partition_point(|s| s.address < start);
        }
        None
    }
}

/// The named symbols of a table. Its names are read at once: one by one, those of a large program take
/// seconds.
fn symbols<'a, R: ReadRef<'a>>(
    data: R,
    sections: &SectionTable<'a, elf::FileHeader64<LittleEndian>, R>,
    table: &Raw<'a, elf::FileHeader64<LittleEndian>, R>,
    dynamic: bool,
) -> Vec<Symbol> {
    let names = sections.section(table.string_section()).ok();
    let names = names.filter(|s| s.sh_size(LittleEndian) <= NAMES_MAX);
    let Some(names) = names.and_then(|s| s.data(LittleEndian, data).ok()) else {
        return Vec::new();
    };
    table.iter().filter_map(|s| symbol(s, names, dynamic)).collect()
}

type RawSymbol = <elf::FileHeader64<LittleEndian> as FileHeader>::Sym;

fn symbol(symbol: &RawSymbol, names: &[u8], dynamic: bool) -> Option<Symbol> {
    let kind = symbol.st_type();
    let is_function = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
    if symbol.is_undefined(LittleEndian)
        || !(is_function || matches!(kind, elf::STT_OBJECT | elf::STT_NOTYPE))
    {
        return None;
    }
    let name = names.get(symbol.st_name(LittleEndian) as usize..)?;
    let name = std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok()?;
    let visible = matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED);
    (!name.is_empty()).then(|| Symbol {
        name: name.to_owned(),
        address: symbol.st_value(LittleEndian),
        size: symbol.st_size(LittleEndian),
        is_function,
        is_indirect: kind == elf::STT_GNU_IFUNC,
        is_exported: dynamic && visible && symbol.st_bind() != elf::STB_LOCAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_demangled() {
        // Each of these is a type to a demangler.
        for plain in ["w", "i", "f", "Dn", "mmap", "_start", ".cold"] {
            assert_eq!(demangled(plain), plain);
        }
        assert_eq!(demangled("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert_eq!(demangled("_Z4growm.constprop.0"), "grow(unsigned long)");
        assert_eq!(demangled("pool_grow.part.0.isra.0"), "pool_grow");
    }

    fn named(name: &str, address: u64, size: u64, is_exported: bool) -> Symbol {
        Symbol {
            name: name.into(),
            address,
            size,
            is_function: true,
            is_indirect: false,
            is_exported,
        }
    }

    #[test]
    fn an_address_has_its_public_name() {
        let table = SymbolTable::of(vec![
            named("__munmap", 0x100, 0x20, false),
            named("munmap", 0x100, 0x20, true),
            named("bare", 0x200, 0, false),
        ]);
        assert_eq!(table.at(0x110).map(|(s, o)| (s.name.as_str(), o)), Some(("munmap", 0x10)));
        assert_eq!(table.starting_at(0x100).len(), 2);
        assert!(table.at(0x130).is_none());
        // Padding behind a sized one is not of an unsized one before that.
        let padded = [named("_init", 0x80, 0, false), named("f", 0x100, 4, true)];
        assert!(SymbolTable::of(padded.to_vec()).at(0x108).is_none());
        assert_eq!(table.at(0x280).map(|(s, o)| (s.name.as_str(), o)), Some(("bare", 0x80)));
        assert_eq!(table.named("munmap").map(|s| s.address), Some(0x100));
    }
}
