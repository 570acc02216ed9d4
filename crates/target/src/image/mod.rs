//! The ELF images of a process: executables, libraries and the vdso, each with its load bias.

mod dynamic;
mod file;
mod functions;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

pub use dynamic::{Definition, Dynamic, FileView, Relocation, Slot, SlotKind};
pub use file::{Elf, Load};

use crate::symbols::SymbolTable;
use crate::{Error, Map, PAGE, Process, Range};

/// One ELF file mapped into a process. A file loaded twice is two images.
#[derive(Debug)]
pub struct Image {
    /// The file's path as the process sees it, without ` (deleted)`.
    pub path: PathBuf,
    /// Whether the file's name is gone.
    pub deleted: bool,
    /// What is added to the file's virtual addresses.
    pub bias: u64,
    /// From its first to its last byte in memory, `.bss` included, whole pages.
    pub range: Range,
    /// The parsed file.
    pub elf: Elf,
    process: Process,
    mapped_at: Range,
}

/// A loaded segment at its address in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Addresses with a byte of the file behind them.
    pub file_backed: Range,
    /// All its addresses, those filled with zeros (`.bss`) included; not rounded to pages.
    pub range: Range,
    /// Where its first byte is in the file.
    pub file_offset: u64,
    /// Mapped executable.
    pub execute: bool,
    /// Mapped writable.
    pub write: bool,
}

impl Image {
    /// Its segments, in order of address.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.elf.loads.iter().map(|load| {
            let start = self.bias.wrapping_add(load.address);
            Segment {
                file_backed: start..start.saturating_add(load.file_size),
                range: start..start.saturating_add(load.memory_size),
                file_offset: load.offset,
                execute: load.execute,
                write: load.write,
            }
        })
    }

    /// The file's name without its folders.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The function that holds `address`, both of the process, by the unwinder's index: for files
    /// without symbols.
    pub fn function(&self, address: u64) -> Option<Range> {
        let file = self.open().ok()?;
        let view = FileView::new(&file, &self.elf);
        let of_file = functions::holding(&view, &self.elf, address.wrapping_sub(self.bias))?;
        Some(self.bias.wrapping_add(of_file.start)..self.bias.wrapping_add(of_file.end))
    }

    /// The file itself, opened through the mapping or through the process's root; it is checked to
    /// be the file that is mapped.
    ///
    /// # Errors
    /// Vanished, denied, or replaced on disk.
    pub fn open(&self) -> Result<File, Error> {
        open_mapped(&self.process, &self.mapped_at, &self.path, self.elf.identity)
    }

    /// A path by which this process reaches the very file that is mapped: in the process's own root, as it
    /// is seen from here, or, where it was replaced or lies beyond both, by way of the mapping.
    pub fn path_here(&self) -> PathBuf {
        let is_it = |path: &PathBuf| {
            let inode = std::fs::metadata(path).ok().map(|meta| meta.ino());
            inode.is_some() && inode == self.elf.identity.map(|(_, inode)| inode)
        };
        let known = [self.process.path_in_root(&self.path), self.path.clone()];
        let Range { start, end } = self.mapped_at;
        let mapped = || self.process.path(&format!("map_files/{start:x}-{end:x}"));
        known.into_iter().find(is_it).unwrap_or_else(mapped)
    }

    /// Which of these marks stand in what the file loads read-only, stripped or not. Reads it whole.
    pub fn mentions(&self, marks: &[&[u8]]) -> Vec<bool> {
        const PIECE: u64 = 1 << 20;
        let mut found = vec![false; marks.len()];
        let Ok(file) = self.open() else { return found };
        let overlap = marks.iter().map(|mark| mark.len()).max().unwrap_or(0) as u64;
        let mut bytes = vec![0; (PIECE + overlap) as usize];
        for load in self.elf.loads.iter().filter(|load| !load.write) {
            for at in (0..load.file_size).step_by(PIECE as usize) {
                let length = (load.file_size - at).min(PIECE + overlap) as usize;
                let piece = &mut bytes[..length];
                if file.read_exact_at(piece, load.offset.saturating_add(at)).is_err() {
                    break;
                }
                for (found, mark) in found.iter_mut().zip(marks).filter(|(found, _)| !**found) {
                    *found = memchr::memmem::find(piece, mark).is_some();
                }
            }
        }
        found
    }

    /// Its symbols: `.symtab`, `.dynsym` and, where installed, the separate debug file. Addresses
    /// are the file's: add [`Image::bias`].
    ///
    /// # Errors
    /// As [`Image::open`], or a symbol table that cannot be read.
    pub fn symbols(&self) -> Result<SymbolTable, Error> {
        let file = self.open()?;
        let mut table = SymbolTable::read(&file, &self.path)?;
        if let Some(more) = SymbolTable::read_compressed(&file) {
            table.merge(more);
        }
        if let Some(debug) = self.elf.build_id.as_deref().and_then(debug_file) {
            let path = [self.process.path_in_root(&debug), debug];
            if let Some((file, path)) = path.iter().find_map(|p| Some((File::open(p).ok()?, p))) {
                // A debug file that cannot be read only leaves names out.
                if let Ok(more) = SymbolTable::read(&file, path) {
                    table.merge(more);
                }
            }
        }
        Ok(table)
    }
}

/// Where distributions install the symbols of a stripped file.
pub fn debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(1)?;
    Some(PathBuf::from(format!("/usr/lib/debug/.build-id/{}/{}.debug", hex(first), hex(rest))))
}

/// Bytes as people write them: two digits each, lower-case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The images of a process, in order of address: every ELF file with an executable mapping. Files
/// that cannot be opened or are not ELF are left out.
pub fn images(process: &Process, maps: &[Map]) -> Vec<Image> {
    let mut opened: HashMap<((u32, u32), u64), Option<Elf>> = HashMap::new();
    let mut found: Vec<Image> = Vec::new();
    for map in maps.iter().filter(|map| map.has_file() && map.permissions.execute) {
        let Some(path) = map.path() else { continue };
        let elf = opened.entry((map.device, map.inode)).or_insert_with(|| {
            let identity = Some((map.device, map.inode));
            let file = open_mapped(process, &map.range(), path, identity).ok()?;
            let mut elf = Elf::read(&file, path).ok()?;
            elf.identity = identity;
            Some(elf)
        });
        let Some(elf) = elf else { continue };
        let Some(bias) = bias(map, elf) else { continue };
        if found.iter().any(|image| image.bias == bias && image.elf.identity == elf.identity) {
            continue;
        }
        let first = elf.loads.first().map_or(0, |load| load.address);
        let last = elf.loads.iter().map(|l| l.address.saturating_add(l.memory_size)).max();
        let start = bias.wrapping_add(first) / PAGE * PAGE;
        let end = bias.wrapping_add(last.unwrap_or(first)).checked_next_multiple_of(PAGE);
        let Some(end) = end.filter(|&end| end > start) else { continue };
        found.push(Image {
            path: path.to_owned(),
            deleted: map.is_deleted(),
            bias,
            range: start..end,
            elf: elf.clone(),
            process: *process,
            mapped_at: map.range(),
        });
    }
    found.sort_by_key(|image| image.range.start);
    found
}

/// The image that holds `address`.
pub fn find(images: &[Image], address: u64) -> Option<&Image> {
    images.iter().find(|image| {
        image.range.contains(&address) && image.segments().any(|s| s.range.contains(&address))
    })
}

fn bias(map: &Map, elf: &Elf) -> Option<u64> {
    let load = elf.loads.iter().filter(|load| load.execute).find(|load| {
        let start = load.offset / PAGE * PAGE;
        (start..load.offset.saturating_add(load.file_size.max(1))).contains(&map.offset)
    })?;
    let into = map.offset - load.offset / PAGE * PAGE;
    Some(map.start.wrapping_sub(load.address / PAGE * PAGE).wrapping_sub(into))
}

/// Opens the file behind a mapping: first through `map_files`, which is the very file even when it
/// was deleted or replaced, else by its path in the process's own root, if it is still that file.
fn open_mapped(
    process: &Process,
    range: &Range,
    path: &Path,
    identity: Option<((u32, u32), u64)>,
) -> Result<File, Error> {
    let direct = process.path(&format!("map_files/{:x}-{:x}", range.start, range.end));
    if let Ok(file) = File::open(direct) {
        return Ok(file);
    }
    let by_path = process.path_in_root(path);
    let file = File::open(&by_path).map_err(|e| Error::of(process.pid(), &by_path, e))?;
    let same = file.metadata().is_ok_and(|meta| {
        // Device numbers differ on btrfs and overlays between maps and stat: the inode decides.
        identity.is_none_or(|(_, inode)| inode == meta.ino())
    });
    if same {
        Ok(file)
    } else {
        Err(Error::Elf { path: by_path, reason: "replaced on disk since it was mapped".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_of_ours() -> u64 {
        a_function_of_ours as *const () as u64
    }

    #[test]
    fn finds_own_images_and_a_function_by_name() {
        let own = Process::own();
        let maps = crate::maps::read(&own).unwrap();
        let images = images(&own, &maps);
        let address = a_function_of_ours();
        let image = find(&images, address).expect("our own image");
        assert_eq!(image.path, std::env::current_exe().unwrap());
        let symbols = image.symbols().unwrap();
        let (symbol, offset) = symbols.at(address - image.bias).unwrap();
        assert!(symbol.name.contains("a_function_of_ours") && offset == 0, "{symbol:?}");

        // Turned round here, so that it stands nowhere in the file.
        let nowhere: Vec<u8> = b"a mark that stands nowhere".iter().rev().copied().collect();
        let marks: [&[u8]; 2] = [b"a mark that stands here", &nowhere];
        assert_eq!(image.mentions(&marks), [true, false]);
        let libc = images.iter().find(|i| i.name().starts_with("libc.so")).expect("a libc");
        let malloc = libc.symbols().unwrap().named("malloc").expect("malloc").address;
        let real = libc::malloc as *const () as u64;
        // SAFETY: asks the dynamic linker for a name; nothing is called.
        let looked_up = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) } as u64;
        assert!([real, looked_up].contains(&(libc.bias + malloc)));
        assert!(libc.elf.build_id.as_ref().is_some_and(|id| id.len() >= 16));
    }
}
