//! What unwinding and symbols need of an ELF file: its segments and its unwind sections.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};
use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, ReadRef, SegmentFlags, elf};

/// Sections larger than this are not read: no linker makes them, a hostile file may.
const SECTION_MAX: u64 = 512 << 20;

/// A section's place in the file's own address space, and its bytes.
#[derive(Debug, Clone)]
pub struct Section {
    /// Addresses as the file states them.
    pub range: Range<u64>,
    /// Content.
    pub data: Arc<[u8]>,
}

/// One loadable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How much of the file, in bytes.
    pub bytes: u64,
    /// The address that the file states.
    pub address: u64,
    /// Whether it holds code.
    pub execute: bool,
}

/// The parts of an ELF file.
#[derive(Debug, Clone, Default)]
pub struct Elf {
    /// Loadable segments.
    pub segments: Vec<Segment>,
    /// Address range of `.text`.
    pub text: Option<Range<u64>>,
    /// `.got`, for relative unwind encodings.
    pub got: Option<Range<u64>>,
    /// `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<Section>,
    /// `.eh_frame`.
    pub eh_frame: Option<Section>,
    /// `.debug_frame`, decompressed.
    pub debug_frame: Option<Section>,
    /// What its linker named it by.
    pub build_id: Option<Vec<u8>>,
    /// Whether it has a symbol table, beside what others link to.
    pub has_symbols: bool,
    /// Whether Go's linker made it: its code keeps frame pointers instead of tables.
    pub is_go: bool,
}

impl Elf {
    /// Reads a file. `None` where it is not an ELF file that can be used.
    pub fn read(file: File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let object = object::File::parse(&cache).ok()?;
        Some(Self::of(&object))
    }

    /// Reads an image from memory, such as the vDSO's.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let object = object::File::parse(bytes).ok()?;
        Some(Self::of(&object))
    }

    fn of<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Self {
        let segments = object
            .segments()
            .map(|s| Segment {
                offset: s.file_range().0,
                bytes: s.file_range().1,
                address: s.address(),
                execute: matches!(s.flags(), SegmentFlags::Elf { p_flags } if p_flags & elf::PF_X != 0),
            })
            .collect();
        let range = |name: &str| {
            let s = object.section_by_name(name)?;
            Some(s.address()..s.address().saturating_add(s.size()))
        };
        let section = |name: &str| {
            let s = object.section_by_name(name)?;
            if s.size() == 0 || s.size() > SECTION_MAX {
                return None;
            }
            let data: Arc<[u8]> = s.uncompressed_data().ok()?.into_owned().into();
            Some(Section { range: s.address()..s.address().saturating_add(s.size()), data })
        };
        let eh_frame = section(".eh_frame");
        Self {
            segments,
            text: range(".text"),
            got: range(".got"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            debug_frame: if eh_frame.is_some() { None } else { section(".debug_frame") },
            eh_frame,
            build_id: object.build_id().ok().flatten().map(<[u8]>::to_vec),
            has_symbols: object.symbol_table().is_some(),
            is_go: object.section_by_name(".gopclntab").is_some()
                || object.section_by_name(".go.buildinfo").is_some(),
        }
    }

    /// Whether an unwind table covers a stated address, as far as that can be looked up.
    pub fn has_table(&self, address: u64) -> bool {
        // Without an index all of it must be read, which is done for what small programs have.
        const READ_MAX: usize = 1 << 20;
        let Some(frames) = &self.eh_frame else {
            return self.debug_frame.is_some() || self.is_go;
        };
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(self.eh_frame_hdr.as_ref().map_or(0, |header| header.range.start))
            .set_eh_frame(frames.range.start)
            .set_text(self.text.as_ref().map_or(0, |text| text.start))
            .set_got(self.got.as_ref().map_or(0, |got| got.start));
        let all = EhFrame::new(&frames.data, LittleEndian);
        let cie = |s: &EhFrame<_>, b: &_, offset| s.cie_from_offset(b, offset);
        let header = self.eh_frame_hdr.as_ref();
        let parsed =
            header.and_then(|h| EhFrameHdr::new(&h.data, LittleEndian).parse(&bases, 8).ok());
        match parsed.as_ref().and_then(gimli::ParsedEhFrameHdr::table) {
            Some(table) => table.fde_for_address(&all, &bases, address, cie).is_ok(),
            None if frames.data.len() > READ_MAX => true,
            None => all.fde_for_address(&bases, address, cie).is_ok(),
        }
    }

    /// The lowest stated address.
    pub fn base(&self) -> u64 {
        self.segments.iter().map(|s| s.address).min().unwrap_or(0)
    }

    /// What to add to a stated address where the file's byte `offset` is mapped executable at
    /// `address`. A page of the file may be of two segments: lld and mold let the code begin where the
    /// data before it ends, each mapped at another distance from its place in the file.
    pub fn bias(&self, address: u64, offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        let s = self.segments.iter().filter(|s| s.execute).find(|s| {
            let first = s.offset & !(PAGE - 1);
            let end = s.offset.saturating_add(s.bytes);
            (first..end.max(first.saturating_add(1))).contains(&offset)
        })?;
        Some(address.wrapping_sub(offset).wrapping_add(s.offset).wrapping_sub(s.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rust-lld makes of a small program.
    #[test]
    fn code_that_shares_a_page_with_data_is_where_it_was_mapped() {
        let data = Segment { offset: 0, bytes: 0x13fec, address: 0, execute: false };
        let code = Segment { offset: 0x13ff0, bytes: 0x3fdb0, address: 0x14ff0, execute: true };
        let elf = Elf { segments: vec![data, code], ..Elf::default() };
        let base = 0x5555_0000_0000;
        assert_eq!(elf.bias(base + 0x14000, 0x13000), Some(base));
        assert_eq!(elf.bias(base + 0x54000, 0x53000), Some(base));
        assert_eq!(elf.bias(base, 0x60000), None);
    }
}
