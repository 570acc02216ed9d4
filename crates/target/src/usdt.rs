//! Probes that a program offers by itself: notes of SystemTap's form (`sys/sdt.h`).
//!
//! A note tells where a probe's nop is, in which provider and of which name, where its arguments then are,
//! and which counter must not be zero for the program to reach it. Addresses are the file's, as they were
//! linked: a tool that moved the file since left `.stapsdt.base` where that distance can be read.

use object::read::ReadCache;
use object::{Object, ObjectSection};

use crate::Image;

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whose it is: `otel_memory`.
    pub provider: String,
    /// `alloc`.
    pub name: String,
    /// Where each argument is, as the compiler wrote it: `8@%rdi -4@-20(%rbp)`.
    pub arguments: String,
    /// Where its nop is, as the file states addresses.
    pub address: u64,
    /// Where in the file the counter of its users is; 0 for none.
    pub counter: u64,
}

/// A note before its addresses have become places in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Address of the nop.
    pub address: u64,
    /// Where `.stapsdt.base` was when the addresses were written.
    pub base: u64,
    /// Address of the counter, or 0.
    pub counter: u64,
    /// Provider, name, arguments.
    pub texts: [String; 3],
}

const OWNER: &[u8] = b"stapsdt\0";
const KIND: u32 = 3;
/// Longer sections are not read: real ones have some kilobytes.
const BYTES_MAX: u64 = 16 << 20;
const NOTES_MAX: usize = 100_000;

/// Parses a section `.note.stapsdt`; what is no such note is left out, and a broken one ends it.
pub fn parse(section: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut rest = section;
    while let Some((kind, owner, body, after)) = note(rest) {
        if kind == KIND && owner == OWNER {
            notes.extend(probe(body));
        }
        rest = after;
        if notes.len() >= NOTES_MAX {
            break;
        }
    }
    notes
}

type Parts<'a> = (u32, &'a [u8], &'a [u8], &'a [u8]);

/// The kind, the owner's name, the body of a note, and what follows it.
fn note(bytes: &[u8]) -> Option<Parts<'_>> {
    let half = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..at + 4)?.first_chunk()?));
    let (name, body, kind) = (half(0)? as usize, half(4)? as usize, half(8)?);
    let padded = |n: usize| n.checked_next_multiple_of(4);
    let name_end = 12usize.checked_add(name)?;
    let body_start = 12usize.checked_add(padded(name)?)?;
    let body_end = body_start.checked_add(body)?;
    let next = body_start.checked_add(padded(body)?)?.min(bytes.len());
    Some((kind, bytes.get(12..name_end)?, bytes.get(body_start..body_end)?, bytes.get(next..)?))
}

fn probe(body: &[u8]) -> Option<Note> {
    let word = |at: usize| Some(u64::from_le_bytes(*body.get(at..at + 8)?.first_chunk()?));
    let mut texts = body.get(24..)?.split(|b| *b == 0);
    let mut text = || Some(String::from_utf8_lossy(texts.next()?).into_owned());
    Some(Note {
        address: word(0)?,
        base: word(8)?,
        counter: word(16)?,
        texts: [text()?, text()?, text()?],
    })
}

/// The probes of an image that a provider offers; none where it cannot be read.
pub fn probes(image: &Image, provider: &str) -> Vec<Probe> {
    let Ok(file) = image.open() else { return Vec::new() };
    let cache = ReadCache::new(file);
    let Ok(object) = object::File::parse(&cache) else { return Vec::new() };
    let base = object.section_by_name(".stapsdt.base").map(|s| s.address());
    let section = object.section_by_name(".note.stapsdt").filter(|s| s.size() <= BYTES_MAX);
    let Some(data) = section.and_then(|s| s.data().ok()) else { return Vec::new() };
    let placed = |note: Note| {
        let moved = base.map_or(0, |now| now.wrapping_sub(note.base));
        let place = |address: u64| image.elf.offset_of(address);
        let [provider, name, arguments] = note.texts;
        let counter = note.counter.wrapping_add(moved);
        let counter = if note.counter == 0 { 0 } else { place(counter)? };
        let address = note.address.wrapping_add(moved);
        Some(Probe { provider, name, arguments, address, counter })
    };
    parse(data).into_iter().filter(|n| n.texts[0] == provider).filter_map(placed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(owner: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in [owner.len() as u32, body.len() as u32, KIND] {
            bytes.extend(n.to_le_bytes());
        }
        for part in [owner, body] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn body() -> Vec<u8> {
        let words = [0x1234u64, 0x4000, 0x5010];
        let mut body: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        body.extend(b"otel_memory\0alloc\x008@%rdi 8@%rsi\0");
        body
    }

    #[test]
    fn notes_of_others_are_left_out() {
        let mut bytes = section(b"GNU\0", &[1; 20]);
        bytes.extend(section(OWNER, &body()));
        let notes = parse(&bytes);
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].texts, ["otel_memory", "alloc", "8@%rdi 8@%rsi"]);
        assert_eq!((notes[0].address, notes[0].base, notes[0].counter), (0x1234, 0x4000, 0x5010));
    }

    #[test]
    fn what_is_cut_short_is_no_probe() {
        let bytes = section(OWNER, &body());
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).len() <= 1);
        }
        assert_eq!(parse(&section(OWNER, &body()[..30])), []);
        let mut huge = bytes;
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&huge), []);
    }
}
