//! Writing a pack file: whole or not at all.
//!
//! Builders take turns by a lock that the kernel gives back when its holder dies, so that a killed
//! builder leaves at most an unfinished file, which the next one writes over. The file gets its
//! name when it is whole and on the disk.

use super::header::{HEADER, Header, Stamp};
use super::layout::Layout;
use crate::Error;
use plumb_gguf::Gguf;
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A path with a suffix added.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn create(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW);
    options
        .open(path)
        .map_err(|source| Error::system(format!("cannot create {}", path.display()), source))
}

/// Waits until no other builder is at work on `path`; dropping the file lets the next one in.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let file = create(&with_suffix(path, ".lock"))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Error::system(format!("cannot lock {}", path.display()), error))?;
    Ok(file)
}

/// Packs a model into the file at `path`. The caller holds its lock.
pub(super) fn build(
    path: &Path,
    stamp: Stamp,
    gguf: &Gguf,
    layout: &Layout<'_>,
) -> Result<(), Error> {
    let unfinished = with_suffix(path, ".unfinished");
    let failed = |what: &str, source: std::io::Error| {
        Error::system(format!("{what} {}", unfinished.display()), source)
    };
    let file = create(&unfinished)?;
    let bytes = HEADER + layout.bytes();
    // Room now: a disk that fills up under a mapping would kill the process.
    file.set_len(0).map_err(|error| failed("cannot empty", error))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)
        .map_err(|error| failed("no room for", error.into()))?;
    let header = Header { stamp, digest: gguf.digest(), layout: layout.fingerprint() };
    let mut mapping = Mapping::new(&file, bytes).map_err(|error| failed("cannot map", error))?;
    layout.pack(gguf, &mut mapping.bytes()[HEADER..])?;
    let said = header.to_bytes();
    mapping.bytes()[..said.len()].copy_from_slice(&said);
    drop(mapping);
    file.sync_all().map_err(|error| failed("cannot write", error))?;
    std::fs::rename(&unfinished, path).map_err(|error| failed("cannot rename", error))
}

/// Renews the header of a whole pack file, so that the next start need not read the model to know it.
/// Whoever reads a mix of two headers finds that its digest is wrong, and looks again under the lock.
pub(super) fn stamp(file: &File, header: &Header) -> Result<(), std::io::Error> {
    // The same file, whatever bears its name by now.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).open(same)?.write_all_at(&header.to_bytes(), 0)
}

/// A file mapped for writing.
struct Mapping {
    base: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: usize) -> Result<Self, std::io::Error> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses; the file is as long.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) }?;
        // SAFETY: as above; advice changes nothing. A kernel without huge pages refuses.
        let _ = unsafe { madvise(base, len, Advice::LinuxHugepage) };
        Ok(Self { base: base.cast(), len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `new`; nobody else knows of the unfinished file while the lock is held.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and its slices are gone.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}
