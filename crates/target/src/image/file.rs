//! What is needed of an ELF file: what it loads, its build id, its dynamic properties.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::elf::{
    DF_TEXTREL, DT_FLAGS, DT_NULL, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_TEXTREL, ET_EXEC,
    FileHeader64, NT_GNU_BUILD_ID, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_INTERP, PT_LOAD,
    PT_NOTE, PT_TLS, ProgramHeader64,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, pod};

use crate::{Error, Range};

/// One `PT_LOAD` segment as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The file's virtual address.
    pub address: u64,
    /// Bytes taken from the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Mapped executable.
    pub execute: bool,
    /// Mapped writable.
    pub write: bool,
}

/// What an ELF file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// What it loads, in order of address.
    pub loads: Vec<Load>,
    /// The linker's build id.
    pub build_id: Option<Vec<u8>>,
    /// Whether it names a dynamic linker: a dynamically linked executable.
    pub has_interpreter: bool,
    /// Whether it has a dynamic section at all.
    pub is_dynamic: bool,
    /// Where the dynamic section is, at the file's addresses.
    pub dynamic: Range,
    /// What the dynamic linker makes read-only once it has relocated it, at the file's addresses.
    pub relro: Range,
    /// The unwinder's index of functions, at the file's addresses.
    pub eh_frame_hdr: Range,
    /// Whether it is linked to fixed addresses.
    pub is_fixed: bool,
    /// Whether the dynamic linker writes into its text (`DT_TEXTREL`).
    pub text_relocations: bool,
    /// Whether Go's linker made it (its own build id is there).
    pub is_go: bool,
    /// Its `DT_SONAME`.
    pub soname: Option<String>,
    /// Size of its thread-local storage, in bytes.
    pub tls_size: u64,
    pub(super) identity: Option<((u32, u32), u64)>,
}

type Header = FileHeader64<LittleEndian>;
type ProgramHeaderLe = ProgramHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;
/// More program headers than any linker writes.
const MAX_HEADERS: usize = 1024;
/// Notes, dynamic sections and their strings are kilobytes; a hostile header may say anything.
const MAX_PART: u64 = 16 << 20;

impl Elf {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// [`Error::Elf`] where it is not a 64-bit little-endian ELF file.
    pub fn read(file: &File, path: &Path) -> Result<Self, Error> {
        let fail = |reason: &str| Error::Elf { path: path.to_owned(), reason: reason.to_owned() };
        let head = part(file, 0, size_of::<Header>() as u64).ok_or_else(|| fail("too short"))?;
        let (header, _) = pod::from_bytes::<Header>(&head).map_err(|()| fail("too short"))?;
        if !header.is_supported() || header.e_ident.class != object::elf::ELFCLASS64 {
            return Err(fail("not a 64-bit ELF file"));
        }
        if header.e_ident.data != object::elf::ELFDATA2LSB {
            return Err(fail("not little-endian"));
        }
        let count = usize::from(header.e_phnum(LE)).min(MAX_HEADERS);
        let length = (count * size_of::<ProgramHeaderLe>()) as u64;
        let table = part(file, header.e_phoff(LE), length)
            .ok_or_else(|| fail("program headers outside the file"))?;
        let (headers, _) = pod::slice_from_bytes::<ProgramHeaderLe>(&table, count)
            .map_err(|()| fail("program headers outside the file"))?;
        let mut elf = Self { is_fixed: header.e_type(LE) == ET_EXEC, ..Self::default() };
        for header in headers {
            elf.take(file, header);
        }
        elf.loads.sort_by_key(|load| load.address);
        if elf.loads.is_empty() {
            return Err(fail("loads nothing"));
        }
        elf.read_dynamic(file, headers);
        Ok(elf)
    }

    fn take(&mut self, file: &File, header: &ProgramHeaderLe) {
        match header.p_type(LE) {
            PT_LOAD => self.loads.push(Load {
                offset: header.p_offset(LE),
                address: header.p_vaddr(LE),
                file_size: header.p_filesz(LE),
                memory_size: header.p_memsz(LE),
                execute: header.p_flags(LE) & object::elf::PF_X != 0,
                write: header.p_flags(LE) & object::elf::PF_W != 0,
            }),
            PT_NOTE => {
                let notes = part(file, header.p_offset(LE), header.p_filesz(LE));
                let notes = notes.unwrap_or_default();
                self.build_id = self.build_id.take().or_else(|| build_id(&notes));
                self.is_go |= notes.get(12..16) == Some(b"Go\0\0");
            }
            PT_INTERP => self.has_interpreter = true,
            PT_DYNAMIC => {
                self.is_dynamic = true;
                self.dynamic = range(header);
            }
            PT_GNU_RELRO => self.relro = range(header),
            PT_GNU_EH_FRAME => self.eh_frame_hdr = range(header),
            PT_TLS => self.tls_size = header.p_memsz(LE),
            _ => {}
        }
    }

    fn read_dynamic(&mut self, file: &File, headers: &[ProgramHeaderLe]) {
        let Some(dynamic) = headers.iter().find(|h| h.p_type(LE) == PT_DYNAMIC) else { return };
        let Some(bytes) = part(file, dynamic.p_offset(LE), dynamic.p_filesz(LE)) else { return };
        let words = crate::memory::words(&bytes);
        let (mut strings, mut length, mut soname) = (None, 0, None);
        for entry in words.chunks_exact(2).take_while(|entry| entry[0] != u64::from(DT_NULL)) {
            match u32::try_from(entry[0]) {
                Ok(DT_TEXTREL) => self.text_relocations = true,
                Ok(DT_FLAGS) if entry[1] & u64::from(DF_TEXTREL) != 0 => {
                    self.text_relocations = true;
                }
                Ok(DT_STRTAB) => strings = self.offset_of(entry[1]),
                Ok(DT_STRSZ) => length = entry[1],
                Ok(DT_SONAME) => soname = Some(entry[1] as usize),
                _ => {}
            }
        }
        self.soname = strings.zip(soname).and_then(|(offset, at)| {
            let bytes = part(file, offset, length)?;
            let name = bytes.get(at..)?.split(|&b| b == 0).next()?;
            Some(String::from_utf8_lossy(name).into_owned())
        });
    }

    /// Where in the file the byte of a virtual address is.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let load = self.loads.iter().find(|load| {
            address.checked_sub(load.address).is_some_and(|into| into < load.file_size)
        })?;
        load.offset.checked_add(address - load.address)
    }
}

fn range(header: &ProgramHeaderLe) -> Range {
    let start = header.p_vaddr(LE);
    start..start.saturating_add(header.p_memsz(LE))
}

fn part(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    if length > MAX_PART {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// Notes are `namesz, descsz, type, name, desc`, each padded to 4 bytes.
fn build_id(notes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = notes;
    loop {
        let field = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let (name, desc, kind) = (field(0)? as usize, field(4)? as usize, field(8)?);
        let desc_at = 12 + name.checked_next_multiple_of(4)?;
        let body = rest.get(desc_at..desc_at.checked_add(desc)?)?;
        if kind == NT_GNU_BUILD_ID && rest.get(12..16) == Some(b"GNU\0") {
            return Some(body.to_vec());
        }
        rest = rest.get(desc_at.checked_add(desc.checked_next_multiple_of(4)?)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_note_that_lies_about_its_length_gives_nothing() {
        let mut note = Vec::new();
        for word in [4u32, 20, 3] {
            note.extend(word.to_le_bytes());
        }
        note.extend(*b"GNU\0");
        note.extend([7; 20]);
        assert_eq!(build_id(&note), Some(vec![7; 20]));
        note[4] = 255;
        assert_eq!(build_id(&note), None);
        note[0..4].fill(255);
        assert_eq!(build_id(&note), None);
    }

    #[test]
    fn other_files_are_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b"\x7fELF\x01\x01\x01".as_slice(), &[0; 100]].concat()).unwrap();
        let error = Elf::read(&file, Path::new("/x")).unwrap_err();
        assert!(error.to_string().contains("64-bit"), "{error}");
    }
}
