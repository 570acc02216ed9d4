//! Text in memory against the text of its file: what was patched after loading.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::image::{Image, Segment};
use crate::{Error, Memory, PAGE, Pagemap, Process, Range, ReadMemory};

/// A run of bytes of text that differ from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where the first differing byte is in the process.
    pub address: u64,
    /// What the file has there.
    pub file: Vec<u8>,
    /// What the memory has there, as long as `file`.
    pub memory: Vec<u8>,
}

impl Difference {
    /// Its addresses.
    pub fn range(&self) -> Range {
        self.address..self.address + self.memory.len() as u64
    }
}

/// Two differing bytes this close belong to one patch: an instruction may keep some of its bytes.
const GAP: usize = 8;
/// A patched image has a handful; one with text relocations could have millions.
const MAX_DIFFERENCES: usize = 4096;

/// Compares the executable segments of an image with its file, in order of address; at most 4096
/// differences. Only pages that are private copies can differ, so only those are read. A segment
/// that is writable too holds data, which is meant to change: it is left out.
///
/// # Errors
/// The file cannot be opened, or the process vanished or is denied.
pub fn differences(
    process: &Process,
    memory: &Memory,
    image: &Image,
) -> Result<Vec<Difference>, Error> {
    let file = image.open()?;
    let pagemap = Pagemap::open(process)?;
    let mut found = Vec::new();
    for segment in image.segments().filter(|segment| segment.execute && !segment.write) {
        let pages =
            segment.file_backed.start / PAGE * PAGE..segment.file_backed.end.next_multiple_of(PAGE);
        for run in pagemap.resident(&pages).iter().filter(|run| !run.file) {
            let start = run.range.start.max(segment.file_backed.start);
            let end = run.range.end.min(segment.file_backed.end);
            compare(&file, memory, &segment, start..end, &mut found);
        }
    }
    Ok(found)
}

/// What file and memory hold at `address`, `length` bytes from an executable segment; `None` where
/// either cannot be read.
pub fn both(
    memory: &Memory,
    image: &Image,
    address: u64,
    length: usize,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let segment = image.segments().find(|s| s.file_backed.contains(&address))?;
    let mut theirs = vec![0; length];
    let mut ours = vec![0; length];
    let offset = segment.file_offset + (address - segment.range.start);
    image.open().ok()?.read_exact_at(&mut ours, offset).ok()?;
    memory.read_exact(address, &mut theirs)?;
    Some((ours, theirs))
}

fn compare(
    file: &File,
    memory: &impl ReadMemory,
    segment: &Segment,
    range: Range,
    found: &mut Vec<Difference>,
) {
    const PIECE: u64 = 1 << 20;
    let mut start = range.start;
    while start < range.end {
        let length = (range.end - start).min(PIECE) as usize;
        let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
        let offset = segment.file_offset + (start - segment.range.start);
        if file.read_exact_at(&mut ours, offset).is_ok()
            && memory.read_exact(start, &mut theirs).is_some()
        {
            for (from, to) in runs(&ours, &theirs) {
                if found.len() >= MAX_DIFFERENCES {
                    return;
                }
                found.push(Difference {
                    address: start + from as u64,
                    file: ours[from..to].to_vec(),
                    memory: theirs[from..to].to_vec(),
                });
            }
        }
        start += length as u64;
    }
}

/// Runs of positions at which two texts of one length differ.
fn runs(a: &[u8], b: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    if a == b {
        return runs;
    }
    for at in (0..a.len().min(b.len())).filter(|&at| a[at] != b[at]) {
        match runs.last_mut() {
            Some(last) if at - last.1 < GAP => last.1 = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_differences_are_one_patch() {
        let file = [0; 64];
        let mut memory = file;
        memory[3] = 1;
        memory[7] = 1;
        memory[40] = 1;
        assert_eq!(runs(&file, &memory), [(3, 8), (40, 41)]);
        assert!(runs(&file, &file).is_empty());
    }

    #[inline(never)]
    extern "C" fn patched() -> u64 {
        std::hint::black_box(42)
    }

    #[test]
    fn sees_a_patch_in_its_own_text_and_nothing_else() {
        let own = Process::own();
        let memory = Memory::open(&own).unwrap();
        let maps = crate::maps::read(&own).unwrap();
        let images = crate::images(&own, &maps);
        let address = patched as *const () as u64;
        let image = crate::image::find(&images, address).unwrap();
        assert_eq!(differences(&own, &memory, image).unwrap(), []);

        // The byte before the function is padding: changing it harms nobody.
        let at = address - 1;
        let mem = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
        let mut was = [0];
        memory.read(at, &mut was).unwrap();
        mem.write_all_at(&[!was[0]], at).unwrap();
        let found = differences(&own, &memory, image).unwrap();
        mem.write_all_at(&was, at).unwrap();
        assert_eq!(found, [Difference { address: at, file: was.to_vec(), memory: vec![!was[0]] }]);
        assert_eq!(both(&memory, image, at, 1), Some((was.to_vec(), was.to_vec())));
        assert_eq!(patched(), 42);
    }
}
