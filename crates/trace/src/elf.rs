//! What unwinding and symbols need of an ELF file: its segments and its unwind sections.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, ReadRef};

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
        }
    }

    /// The lowest stated address.
    pub fn base(&self) -> u64 {
        self.segments.iter().map(|s| s.address).min().unwrap_or(0)
    }

    /// What to add to a stated address where the file's byte `offset` is mapped at `address`.
    pub fn bias(&self, address: u64, offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        let s = self.segments.iter().find(|s| {
            let first = s.offset & !(PAGE - 1);
            let end = s.offset.saturating_add(s.bytes);
            (first..end.max(first.saturating_add(1))).contains(&offset)
        })?;
        Some(address.wrapping_sub(offset).wrapping_add(s.offset).wrapping_sub(s.address))
    }
}
