//! Which pages of a range are resident: the `PAGEMAP_SCAN` call, or the entries of
//! `/proc/PID/pagemap` on kernels before 6.7.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::{Error, PAGE, Process, Range};

/// A run of resident pages of one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its addresses, whole pages.
    pub range: Range,
    /// Whether huge pages stand behind it. Always false where the kernel cannot tell.
    pub huge: bool,
    /// Whether the pages are a file's or shared memory's own, not private copies.
    pub file: bool,
}

/// The page table of a process, as far as the kernel shows it.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    scan: bool,
}

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_ZERO_PAGE: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;
/// `_IOWR('f', 16, struct pm_scan_arg)` of linux/fs.h.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

impl Pagemap {
    /// Opens the page table of a process.
    ///
    /// # Errors
    /// Vanished or denied.
    pub fn open(process: &Process) -> Result<Self, Error> {
        let path = process.path("pagemap");
        let file = File::open(&path).map_err(|e| Error::of(process.pid(), &path, e))?;
        let mut pagemap = Self { file, scan: true };
        pagemap.scan = pagemap.scan_range(&(0..PAGE), &mut |_| {}).is_some();
        Ok(pagemap)
    }

    /// Whether huge pages can be told from small ones.
    pub fn knows_huge(&self) -> bool {
        self.scan
    }

    /// The resident pages of `range` (page aligned), in order, in runs of one sort. The shared zero
    /// page does not count, as it does not in RSS, where the kernel can tell it.
    pub fn resident(&self, range: &Range) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut add = |run: Run| match runs.last_mut() {
            Some(last)
                if last.range.end == run.range.start
                    && last.huge == run.huge
                    && last.file == run.file =>
            {
                last.range.end = run.range.end;
            }
            _ => runs.push(run),
        };
        if !self.scan || self.scan_range(range, &mut add).is_none() {
            self.read_entries(range, &mut add);
        }
        runs
    }

    /// Bytes of `range` (page aligned) that are resident.
    pub fn resident_bytes(&self, range: &Range) -> u64 {
        self.resident(range).iter().map(|run| run.range.end - run.range.start).sum()
    }

    fn scan_range(&self, range: &Range, add: &mut dyn FnMut(Run)) -> Option<()> {
        let mut regions = [Region::default(); 512];
        let mut start = range.start;
        while start < range.end {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                start,
                end: range.end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: regions.len() as u64,
                category_inverted: IS_ZERO_PAGE,
                category_mask: IS_PRESENT | IS_ZERO_PAGE,
                return_mask: IS_HUGE | IS_FILE,
                ..ScanArguments::default()
            };
            // SAFETY: the kernel reads and writes `arguments`, whose size it is told, and writes at
            // most `vec_len` entries at `vec`, which is `regions`; both live through the call.
            let got =
                unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
            let got = usize::try_from(got).ok()?;
            for region in regions.get(..got)? {
                add(Run {
                    range: region.start..region.end,
                    huge: region.categories & IS_HUGE != 0,
                    file: region.categories & IS_FILE != 0,
                });
            }
            if arguments.walk_end <= start {
                return None;
            }
            start = arguments.walk_end;
        }
        Some(())
    }

    fn read_entries(&self, range: &Range, add: &mut dyn FnMut(Run)) {
        const PRESENT: u64 = 1 << 63;
        const FILE: u64 = 1 << 61;
        let mut buffer = vec![0; 64 * 1024];
        let mut address = range.start;
        while address < range.end {
            let wanted = (((range.end - address) / PAGE * 8) as usize).min(buffer.len());
            let Ok(got) = self.file.read_at(&mut buffer[..wanted], address / PAGE * 8) else {
                return;
            };
            if got < 8 {
                return;
            }
            for entry in crate::memory::words(&buffer[..got]) {
                if entry & PRESENT != 0 {
                    let range = address..address + PAGE;
                    add(Run { range, huge: false, file: entry & FILE != 0 });
                }
                address += PAGE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_are_resident_and_both_ways_agree() {
        let mut block = memmap2::MmapMut::map_anon(16 * PAGE as usize).unwrap();
        let start = block.as_ptr() as u64;
        block[PAGE as usize * 3] = 1;
        block[PAGE as usize * 4] = 1;
        block[PAGE as usize * 9] = 1;
        let mut pagemap = Pagemap::open(&Process::own()).unwrap();
        let range = start..start + 16 * PAGE;
        let expected = [start + 3 * PAGE..start + 5 * PAGE, start + 9 * PAGE..start + 10 * PAGE];
        for scan in [pagemap.scan, false] {
            pagemap.scan = scan;
            let runs = pagemap.resident(&range);
            assert_eq!(runs.iter().map(|run| run.range.clone()).collect::<Vec<_>>(), expected);
            assert!(runs.iter().all(|run| !run.huge && !run.file));
            assert_eq!(pagemap.resident_bytes(&range), 3 * PAGE);
        }
    }
}
