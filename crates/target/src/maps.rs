//! `/proc/PID/maps`: what is mapped where.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::{Error, Process, Range};

/// How a mapping may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// Writes are seen by others (`MAP_SHARED`).
    pub shared: bool,
}

/// One mapping (VMA) of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// How it may be used.
    pub permissions: Permissions,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// Device of the file, as `(major, minor)`.
    pub device: (u32, u32),
    /// Inode of the file, 0 where there is none.
    pub inode: u64,
    /// The kernel's name for it: a path, `[heap]`, or empty. Escapes are undone.
    pub name: OsString,
}

impl Map {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it has no bytes (the parser never returns such a map).
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Its addresses.
    pub fn range(&self) -> Range {
        self.start..self.end
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether a file stands behind it (memfds and shared memory included).
    pub fn has_file(&self) -> bool {
        self.inode != 0
    }

    /// Whether it is private memory without a file: anonymous, `[heap]`, `[stack]`, `[anon:…]`.
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0
            && !self.permissions.shared
            && !matches!(
                self.name.as_bytes(),
                b"[vdso]" | b"[vvar]" | b"[vvar_vclock]" | b"[vsyscall]" | b"[uprobes]"
            )
    }

    /// The file's path without the kernel's ` (deleted)`, where a file stands behind it.
    pub fn path(&self) -> Option<&Path> {
        if !self.has_file() {
            return None;
        }
        let name = self.name.as_bytes();
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        Some(Path::new(OsStr::from_bytes(name)))
    }

    /// Whether the kernel says that the file's name is gone.
    pub fn is_deleted(&self) -> bool {
        self.has_file() && self.name.as_bytes().ends_with(b" (deleted)")
    }
}

/// Reads the maps of a process, in order of address, never overlapping.
///
/// # Errors
/// As for any file of `/proc`: vanished, denied, or a line that is not understood.
pub fn read(process: &Process) -> Result<Vec<Map>, Error> {
    parse(&process.read("maps")?)
}

/// Parses the text of a `maps` file. Where mappings changed during the read so that lines overlap,
/// the later line loses what was already listed.
///
/// # Errors
/// A line that is not of the kernel's form.
pub fn parse(text: &[u8]) -> Result<Vec<Map>, Error> {
    let mut maps = Vec::with_capacity(text.len() / 80);
    let mut last_end = 0;
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let mut map = parse_line(line).ok_or_else(|| Error::parse("maps", line))?;
        map.start = map.start.max(last_end);
        if map.start < map.end {
            last_end = map.end;
            maps.push(map);
        }
    }
    Ok(maps)
}

/// The mapping that holds `address`, by binary search in sorted maps.
pub fn find(maps: &[Map], address: u64) -> Option<&Map> {
    let at = maps.partition_point(|map| map.end <= address);
    maps.get(at).filter(|map| map.contains(address))
}

/// The positions of the mappings that overlap `range`, in sorted maps.
pub fn overlapping(maps: &[Map], range: &Range) -> std::ops::Range<usize> {
    let from = maps.partition_point(|map| map.end <= range.start);
    let to = maps.partition_point(|map| map.start < range.end);
    from..to.max(from)
}

/// Where the private writable mappings that touch each other from `address` on end.
pub fn end_of_run(maps: &[Map], address: u64) -> u64 {
    let from = maps.partition_point(|map| map.start < address);
    let runs = maps[from..].iter().filter(|map| map.is_anonymous() && map.permissions.write);
    runs.fold(address, |end, map| if map.start == end { map.end } else { end })
}

/// No heap grows by more while it is read.
pub(crate) const GROWN: u64 = 1 << 30;

/// How far `brk` may have come since the maps were read: of gigabytes they take long to read, and a
/// heap that grows is past its mapping's end before anybody looks into it.
pub fn reach_of_heap(maps: &[Map], heap: &Map) -> u64 {
    let end = end_of_run(maps, heap.end);
    let next = maps.get(maps.partition_point(|map| map.start < end));
    next.map_or(u64::MAX, |next| next.start).min(end.saturating_add(GROWN))
}

/// One line: `start-end perms offset major:minor inode name`.
pub(crate) fn parse_line(line: &[u8]) -> Option<Map> {
    let mut rest = line;
    let (start, end) = split_pair(field(&mut rest)?, b'-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let permissions = permissions(field(&mut rest)?)?;
    let offset = hex(field(&mut rest)?)?;
    let (major, minor) = split_pair(field(&mut rest)?, b':')?;
    let device = (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?);
    let inode = decimal(field(&mut rest)?)?;
    let name = unescape(rest.trim_ascii_start());
    (start < end).then_some(Map { start, end, permissions, offset, device, inode, name })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let line = *rest;
    let end = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
    *rest = line.get(end + 1..).unwrap_or(&[]);
    (end > 0).then(|| &line[..end])
}

fn split_pair(text: &[u8], by: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&b| b == by)?;
    Some((&text[..at], &text[at + 1..]))
}

fn permissions(text: &[u8]) -> Option<Permissions> {
    let [read, write, execute, shared] = *text else { return None };
    Some(Permissions {
        read: read == b'r',
        write: write == b'w',
        execute: execute == b'x',
        shared: matches!(shared, b's' | b'S'),
    })
}

pub(crate) fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter()
        .try_fold(0u64, |value, &b| Some(value << 4 | u64::from(char::from(b).to_digit(16)?)))
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The kernel writes a newline in a name as `\012` and escapes nothing else.
fn unescape(name: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            out.push(b'\n');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
556554472000-556554477000 r-xp 00002000 fe:00 247030                     /usr/bin/cat\n\
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n\
7f0000021000-7f0000022000 rw-s 00000000 00:01 1030                       /memfd:a\\012b (deleted)\n\
7ffcb3174000-7ffcb3195000 rw-p 00000000 00:00 0                          [stack]\n";

    #[test]
    fn reads_every_field() {
        let maps = parse(TEXT).unwrap();
        assert_eq!(maps.len(), 4);
        assert_eq!(maps[0].range(), 0x5565_5447_2000..0x5565_5447_7000);
        assert!(maps[0].permissions.execute && !maps[0].permissions.write);
        assert_eq!((maps[0].offset, maps[0].device, maps[0].inode), (0x2000, (0xfe, 0), 247_030));
        assert!(maps[1].is_anonymous() && maps[1].name.is_empty());
        assert_eq!(maps[2].path(), Some(Path::new("/memfd:a\nb")));
        assert!(maps[2].is_deleted() && maps[2].permissions.shared);
        assert!(find(&maps, 0x7f00_0002_1fff).is_some_and(Map::has_file));
        assert!(find(&maps, 0x7f00_0002_2000).is_none());
    }

    #[test]
    fn lines_that_overlap_after_a_change_are_trimmed() {
        let text =
            b"1000-3000 rw-p 0 00:00 0 \n2000-4000 rw-p 0 00:00 0 \n3000-4000 r--p 0 00:00 0 \n";
        let maps = parse(text).unwrap();
        assert_eq!(
            maps.iter().map(Map::range).collect::<Vec<_>>(),
            [0x1000..0x3000, 0x3000..0x4000]
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in
            ["x", "10-z rw-p 0 0:0 0", "2-1 rw-p 0 0:0 0", "1-2 rw 0 0:0 0", "1-2 rw-p 0 0:0"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
