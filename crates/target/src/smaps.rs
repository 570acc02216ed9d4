//! `/proc/PID/smaps`: what each mapping costs.

use std::fs::File;
use std::io::Read;

use crate::maps::{self, decimal};
use crate::{Error, Map, Process};

/// What one mapping costs, in bytes, as the kernel counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident bytes.
    pub rss: u64,
    /// Resident bytes, shared ones divided by the number of sharers.
    pub pss: u64,
    /// Resident bytes that others map too and nobody changed.
    pub shared_clean: u64,
    /// Resident bytes that others map too, changed.
    pub shared_dirty: u64,
    /// Resident bytes of this process alone, unchanged.
    pub private_clean: u64,
    /// Resident bytes of this process alone, changed.
    pub private_dirty: u64,
    /// Resident bytes without a file behind them.
    pub anonymous: u64,
    /// Freed by `MADV_FREE`, taken back only under pressure.
    pub lazy_free: u64,
    /// In transparent huge pages.
    pub anon_huge: u64,
    /// In huge pages of hugetlbfs: not in `rss`.
    pub hugetlb: u64,
    /// Swapped out.
    pub swap: u64,
    /// Locked, proportionally.
    pub locked: u64,
}

/// One mapping and its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mapping.
    pub map: Map,
    /// Its cost.
    pub usage: Usage,
}

/// Reads the mappings of a process with their costs. A target that keeps changing its mappings can
/// tear the reading: of lines that overlap, one counts.
///
/// # Errors
/// Vanished, denied, or a line that is not understood. A process that has just ended reads as empty
/// in `/proc`, and is reported as vanished.
pub fn read(process: &Process) -> Result<Vec<Entry>, Error> {
    read_each(process, &mut |_| {})
}

/// As [`read`], and calls `met` with each mapping as soon as the kernel has told its cost: what is
/// asked of a mapping then is of the same moment, though a whole reading takes long. A mapping that
/// was met may be met again when it has grown meanwhile; the later meeting is the one that counts.
///
/// # Errors
/// As [`read`].
pub fn read_each(process: &Process, met: &mut dyn FnMut(&Entry)) -> Result<Vec<Entry>, Error> {
    let path = process.path("smaps");
    let fail = |e| Error::of(process.pid(), &path, e);
    let mut file = File::open(&path).map_err(fail)?;
    let mut parser = Parser::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            got => parser.feed(&buffer[..got])?,
        }
        parser.meet(met);
    }
    let entries = parser.finish()?;
    if entries.is_empty() && !process.is_alive() {
        return Err(Error::Vanished { pid: process.pid() });
    }
    Ok(entries)
}

/// Parses the text of a `smaps` file.
///
/// # Errors
/// A line that is not of the kernel's form.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut parser = Parser::default();
    parser.feed(text)?;
    parser.finish()
}

/// Takes the text in pieces: the file of 100,000 mappings is 70 MB.
#[derive(Debug, Default)]
pub struct Parser {
    entries: Vec<Entry>,
    rest: Vec<u8>,
    skipping: bool,
    /// How many entries were met.
    met: usize,
}

impl Parser {
    /// The next piece of text; pieces may end anywhere.
    ///
    /// # Errors
    /// A line that is not of the kernel's form.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Error> {
        let mut piece = piece;
        if !self.rest.is_empty() {
            let Some(end) = piece.iter().position(|&b| b == b'\n') else {
                self.rest.extend_from_slice(piece);
                return Ok(());
            };
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&piece[..end]);
            self.line(&line)?;
            piece = &piece[end + 1..];
        }
        while let Some(end) = piece.iter().position(|&b| b == b'\n') {
            self.line(&piece[..end])?;
            piece = &piece[end + 1..];
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// All mappings.
    ///
    /// # Errors
    /// A last line that is not of the kernel's form.
    pub fn finish(mut self) -> Result<Vec<Entry>, Error> {
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest)?;
        Ok(self.entries)
    }

    /// The kernel ends a piece with a whole mapping, as long as that fits.
    fn meet(&mut self, met: &mut dyn FnMut(&Entry)) {
        if self.rest.is_empty() {
            self.entries[self.met..].iter().for_each(met);
            self.met = self.entries.len();
        }
    }

    /// Makes room for a mapping among those that it overlaps. One that begins no later than they do
    /// has grown over them while it was read, and says what they said; another is left out.
    fn is_news(&mut self, start: u64) -> bool {
        let from = self.entries.partition_point(|entry| entry.map.start < start);
        let apart = from.checked_sub(1).is_none_or(|last| self.entries[last].map.end <= start);
        if apart {
            self.entries.truncate(from);
            self.met = self.met.min(from);
        }
        apart
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        let Some(&first) = line.first() else { return Ok(()) };
        // Keys start with a capital; addresses are lower-case hexadecimal.
        if !first.is_ascii_uppercase() {
            let map = maps::parse_line(line).ok_or_else(|| Error::parse("smaps", line))?;
            self.skipping = !self.is_news(map.start);
            if !self.skipping {
                self.entries.push(Entry { map, usage: Usage::default() });
            }
            return Ok(());
        }
        if let Some(entry) = self.entries.last_mut().filter(|_| !self.skipping) {
            set(&mut entry.usage, line);
        }
        Ok(())
    }
}

fn set(usage: &mut Usage, line: &[u8]) {
    let Some(colon) = line.iter().position(|&b| b == b':') else { return };
    let field = match &line[..colon] {
        b"Rss" => &mut usage.rss,
        b"Pss" => &mut usage.pss,
        b"Shared_Clean" => &mut usage.shared_clean,
        b"Shared_Dirty" => &mut usage.shared_dirty,
        b"Private_Clean" => &mut usage.private_clean,
        b"Private_Dirty" => &mut usage.private_dirty,
        b"Anonymous" => &mut usage.anonymous,
        b"LazyFree" => &mut usage.lazy_free,
        b"AnonHugePages" => &mut usage.anon_huge,
        b"Shared_Hugetlb" | b"Private_Hugetlb" => &mut usage.hugetlb,
        b"Swap" => &mut usage.swap,
        b"Locked" => &mut usage.locked,
        _ => return,
    };
    let value = line[colon + 1..].trim_ascii();
    let digits = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    *field = field.saturating_add(decimal(digits).unwrap_or(0).saturating_mul(1024));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
1000-9000 rw-p 00000000 00:00 0 \n\
Size:                 32 kB\n\
Rss:                  20 kB\n\
Pss_Dirty:             7 kB\n\
AnonHugePages:         4 kB\n\
VmFlags: rd wr mr mw me ac \n\
8000-a000 rw-p 00000000 00:00 0 \n\
Rss:                   8 kB\n\
b000-c000 r--p 00000000 fe:00 7                          /x: y\n\
Rss:                   4 kB\n\
Swap:                  8 kB\n";

    #[test]
    fn reads_costs_whatever_the_pieces() {
        for size in [1, 7, 64, TEXT.len()] {
            let mut parser = Parser::default();
            TEXT.chunks(size).for_each(|piece| parser.feed(piece).unwrap());
            let entries = parser.finish().unwrap();
            // The middle entry overlaps the first: it was cut off while it was read.
            assert_eq!(entries.len(), 2, "pieces of {size}");
            assert_eq!((entries[0].usage.rss, entries[0].usage.anon_huge), (20 << 10, 4 << 10));
            assert_eq!((entries[1].usage.rss, entries[1].usage.swap), (4 << 10, 8 << 10));
        }
    }

    #[test]
    fn a_mapping_that_grew_while_it_was_read_counts_once_and_whole() {
        let text = b"1000-2000 rw-p 0 00:00 0 \nRss: 4 kB\n\
            3000-4000 rw-p 0 00:00 0 \nRss: 4 kB\n\
            2000-6000 rw-p 0 00:00 0 \nRss: 12 kB\n\
            7000-8000 rw-p 0 00:00 0 \nRss: 4 kB\n";
        let mut parser = Parser::default();
        let mut seen = Vec::new();
        for piece in text.split_inclusive(|&b| b == b'\n') {
            parser.feed(piece).unwrap();
            parser.meet(&mut |entry| seen.push(entry.map.start));
        }
        let entries = parser.finish().unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.map.range(), e.usage.rss >> 10)).collect();
        assert_eq!(found, [(0x1000..0x2000, 4), (0x2000..0x6000, 12), (0x7000..0x8000, 4)]);
        assert_eq!(seen, [0x1000, 0x3000, 0x2000, 0x7000]);
    }

    #[test]
    fn own_costs_add_up_to_the_kernels_counter() {
        let own = Process::own();
        let rss: u64 = read(&own).unwrap().iter().map(|entry| entry.usage.rss).sum();
        let counter = own.status().unwrap().vm_rss;
        assert!(rss.abs_diff(counter) < 2 << 20, "smaps {rss}, status {counter}");
    }
}
