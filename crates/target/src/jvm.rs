//! What HotSpot says of its own heap: the performance data that every JVM maps and updates at each
//! collection (`hotspot/share/runtime/perfMemory.hpp`, which `jstat` reads). A JVM that was started with
//! `-XX:-UsePerfData` has none.

use memchr::memmem;

use crate::{Map, Range, ReadMemory};

/// A heap with generations: what survives collections ends in the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JavaHeap {
    /// Bytes in use of the old generation after the last collection.
    pub old_bytes: u64,
    /// How often that was collected itself: concurrent cycles and full collections.
    pub old_collections: u64,
    /// Bytes that all generations may take without asking for more.
    pub capacity_bytes: u64,
}

const MAGIC: u32 = 0xc0c0_feca;
const PROLOGUE: usize = 32;
const ENTRY: usize = 20;
/// The file is 32 KiB unless it was set otherwise.
const MOST: u64 = 1 << 20;
const LITTLE_ENDIAN: u8 = 1;

/// Where the JVM with these mappings has its performance data.
pub fn data(maps: &[Map]) -> Option<Range> {
    let is_its = |map: &&Map| memmem::find(map.name.as_encoded_bytes(), b"/hsperfdata_").is_some();
    maps.iter().find(is_its).map(Map::range)
}

/// What the performance data there says of the heap; cheap enough for every look. `None` where it says
/// nothing, or nothing that is understood: collectors without generations have no old one.
pub fn read(memory: &impl ReadMemory, data: &Range) -> Option<JavaHeap> {
    let mut bytes = vec![0; (data.end - data.start).min(MOST) as usize];
    let got = memory.read_at(data.start, &mut bytes);
    parse(&bytes[..got])
}

/// Reads the bytes of a performance-data file.
pub fn parse(bytes: &[u8]) -> Option<JavaHeap> {
    let half = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if half(0)? != MAGIC || *bytes.get(4)? != LITTLE_ENDIAN {
        return None;
    }
    let (mut at, count) = (half(24)? as usize, half(28)?);
    let (mut used, mut collections, mut capacity) = (None, 0, 0u64);
    for _ in 0..count {
        if at < PROLOGUE {
            return None;
        }
        let length = half(at)? as usize;
        let name = bytes.get(at.checked_add(half(at + 4)? as usize)?..)?;
        let name = &name[..name.iter().position(|&b| b == 0)?];
        let is_long = *bytes.get(at + 12)? == b'J';
        let value = at.checked_add(half(at + 16)? as usize)?;
        match name {
            b"sun.gc.generation.1.space.0.used" if is_long => used = Some(word(value)?),
            // 0 collects the young generation; 1 all of it; 2 is G1's concurrent cycle, of which each
            // has two pauses.
            b"sun.gc.collector.1.invocations" if is_long => {
                collections = word(value)?.checked_add(collections)?
            }
            b"sun.gc.collector.2.invocations" if is_long => {
                collections = (word(value)? / 2).checked_add(collections)?;
            }
            b"sun.gc.generation.0.capacity" | b"sun.gc.generation.1.capacity" if is_long => {
                capacity = capacity.checked_add(word(value)?)?;
            }
            _ => {}
        }
        at = at.checked_add(length.max(ENTRY))?;
    }
    Some(JavaHeap { old_bytes: used?, old_collections: collections, capacity_bytes: capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these names and values.
    fn file(entries: &[(&str, u64)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([LITTLE_ENDIAN, 2, 0, 1]);
        bytes.extend([0; 16]);
        bytes.extend(32u32.to_le_bytes());
        bytes.extend((entries.len() as u32).to_le_bytes());
        for (name, value) in entries {
            let room = (name.len() + 1).next_multiple_of(8) + 4;
            let length = ENTRY + room + 8;
            for field in [length, ENTRY, 0] {
                bytes.extend((field as u32).to_le_bytes());
            }
            bytes.extend([b'J', 0, 1, 3]);
            bytes.extend(((ENTRY + room) as u32).to_le_bytes());
            bytes.extend(name.bytes());
            bytes.resize(bytes.len() + room - name.len(), 0);
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_old_generation_and_how_often_it_was_collected() {
        let bytes = file(&[
            ("sun.gc.collector.0.invocations", 90),
            ("sun.gc.collector.1.invocations", 1),
            ("sun.gc.collector.2.invocations", 4),
            ("sun.gc.generation.0.capacity", 1_000),
            ("sun.gc.generation.0.space.0.used", 5),
            ("sun.gc.generation.1.capacity", 500),
            ("sun.gc.generation.1.space.0.used", 93_157_376),
        ]);
        let heap = JavaHeap { old_bytes: 93_157_376, old_collections: 3, capacity_bytes: 1_500 };
        assert_eq!(parse(&bytes), Some(heap));
        // Torn or hostile files say nothing.
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        let mut hostile = bytes.clone();
        hostile[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&hostile), None);
        assert_eq!(parse(&file(&[("sun.gc.generation.0.space.0.used", 5)])), None);
    }
}
