//! A region: descriptor, mapping, name.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::Error;
use crate::registry::Registered;

/// Linux's bound on a memfd's name, without the terminating zero.
const NAME_MAX: usize = 249;
/// No page of Linux's is larger, but for huge ones.
const PAGE: usize = 64 << 10;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Named memory, mapped once for as long as this lives.
///
/// Sharing the bytes soundly is the owner's duty: a region hands out a pointer, not references.
#[derive(Debug)]
pub struct Region {
    name: String,
    base: NonNull<u8>,
    bytes: usize,
    fd: OwnedFd,
    writable: bool,
    _registered: Registered,
}

// SAFETY: a region is an address range and a descriptor, both valid on every thread; it gives out
// raw pointers only, whose use is the caller's duty.
unsafe impl Send for Region {}
// SAFETY: as above; no method changes the region through `&self`.
unsafe impl Sync for Region {}

impl Region {
    /// A zeroed memfd of `bytes` bytes, named `plumb-NAME`, mapped for reading and writing.
    ///
    /// # Errors
    /// [`Error::Size`] for 0 bytes, [`Error::System`] where the kernel refuses.
    pub fn create(name: &str, bytes: usize) -> Result<Self, Error> {
        let name = visible_name(name);
        let failed = |step, errno| Error::System { name: name.clone(), bytes, step, errno };
        check_size(&name, bytes)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(name.as_str(), flags)
            .map_err(|errno| failed("memfd_create", errno))?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(|errno| failed("ftruncate", errno))?;
        let base = map(&fd, bytes, ProtFlags::READ | ProtFlags::WRITE)
            .map_err(|errno| failed("map", errno))?;
        let region = Self::registered(name.clone(), base, bytes, fd, true);
        // After our own mapping: this one stays writable, no later one can be.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&region.fd, seals).map_err(|errno| failed("seal", errno))?;
        Ok(region)
    }

    /// Takes the memory of some bytes of a region of ours now, so that memory that is short is an
    /// error here and not a stall, or a death, in the middle of a request. Bytes stay as they are,
    /// whoever reads or writes them meanwhile.
    ///
    /// # Errors
    /// [`Error::System`] when memory is short.
    pub fn populate(&self, bytes: Range<usize>) -> Result<(), Error> {
        let end = bytes.end.min(self.bytes);
        let start = bytes.start.min(end) / PAGE * PAGE;
        if start == end {
            return Ok(());
        }
        // SAFETY: the range lies within our own live mapping; populating it changes no byte.
        let populated = unsafe {
            let first = self.base.add(start);
            madvise(first.as_ptr().cast(), end - start, Advice::LinuxPopulateWrite)
        };
        let taken = match populated {
            // Before Linux 5.14. fallocate takes the same pages, through the descriptor.
            Err(Errno::INVAL) => rustix::fs::fallocate(
                &self.fd,
                rustix::fs::FallocateFlags::empty(),
                start as u64,
                (end - start) as u64,
            ),
            answer => answer,
        };
        taken.map_err(|errno| Error::System {
            name: self.name.clone(),
            bytes: self.bytes,
            step: "populate",
            errno,
        })
    }

    /// Makes the whole huge pages among some populated bytes such, where the kernel has some: what lies in
    /// them is read far faster. It may have to make room for them first, so that it can take long; bytes
    /// stay as they are, whoever reads or writes them meanwhile.
    pub fn collapse(&self, bytes: Range<usize>) {
        let end = bytes.end.min(self.bytes) / HUGE * HUGE;
        let start = bytes.start.next_multiple_of(HUGE);
        if start < end {
            // SAFETY: the range lies within our own live mapping; which pages a byte lies in changes
            // nothing. What the kernel cannot do stays in small pages.
            unsafe {
                let first = self.base.add(start).as_ptr().cast();
                libc::madvise(first, end - start, libc::MADV_COLLAPSE);
            }
        }
    }

    /// A peer's region, mapped read-only from the descriptor that it handed over. In the list of
    /// regions it bears `name`; in `/proc/PID/maps` the name that its owner gave it.
    ///
    /// # Errors
    /// [`Error::Short`] and [`Error::Unsealed`] for a descriptor that could kill its reader by
    /// SIGBUS, [`Error::System`] where the kernel refuses.
    pub fn open(name: &str, fd: OwnedFd, bytes: usize) -> Result<Self, Error> {
        let failed = |step, errno| Error::System { name: name.to_owned(), bytes, step, errno };
        check_size(name, bytes)?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("fstat", errno))?;
        let held = u64::try_from(stat.st_size).unwrap_or(0);
        if held < bytes as u64 {
            return Err(Error::Short { name: name.to_owned(), promised: bytes, held });
        }
        // Asking a descriptor that is no memfd is EINVAL: it can be shrunk all the same.
        let seals = rustix::fs::fcntl_get_seals(&fd).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::Unsealed { name: name.to_owned() });
        }
        let base = map(&fd, bytes, ProtFlags::READ).map_err(|errno| failed("map", errno))?;
        Ok(Self::registered(name.to_owned(), base, bytes, fd, false))
    }

    /// A whole file, mapped read-only and shared: processes that map the same file share its pages.
    ///
    /// The file must not be truncated while it is mapped (its reader would die of SIGBUS): map files
    /// that are written whole and renamed into place.
    ///
    /// # Errors
    /// [`Error::Size`] for an empty file, [`Error::System`] where the kernel refuses.
    pub fn map_file(name: &str, file: File) -> Result<Self, Error> {
        let failed =
            |bytes, step, errno| Error::System { name: name.to_owned(), bytes, step, errno };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(0, "fstat", errno))?;
        let bytes = usize::try_from(stat.st_size).unwrap_or(0);
        check_size(name, bytes)?;
        let fd = OwnedFd::from(file);
        let base = map(&fd, bytes, ProtFlags::READ).map_err(|errno| failed(bytes, "map", errno))?;
        // What is not in memory is then read in huge pages. A kernel that has none refuses.
        // SAFETY: the new mapping; advice changes no byte of it.
        let _ = unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(Self::registered(name.to_owned(), base, bytes, fd, false))
    }

    fn registered(
        name: String,
        base: NonNull<u8>,
        bytes: usize,
        fd: OwnedFd,
        writable: bool,
    ) -> Self {
        let registered = Registered::new(&name, bytes);
        Self { name, base, bytes, fd, writable, _registered: registered }
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first byte. Readable for [`len`](Self::len) bytes while the region lives; writable only
    /// where [`writable`](Self::writable) says so.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the mapping may be written.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The descriptor, to hand to a peer.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us, whole, and nothing of it was given away but pointers
        // whose users may not outlive the region.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of {}: {unmapped:?}", self.name);
    }
}

fn visible_name(name: &str) -> String {
    // A zero byte would end the name early.
    let mut visible = format!("plumb-{}", name.replace('\0', "_"));
    while visible.len() > NAME_MAX {
        visible.pop();
    }
    visible
}

fn check_size(name: &str, bytes: usize) -> Result<(), Error> {
    if bytes == 0 || isize::try_from(bytes).is_err() {
        return Err(Error::Size { name: name.to_owned(), bytes });
    }
    Ok(())
}

/// Maps all of a descriptor, from a huge page's boundary on where it is as long as one: elsewhere the
/// kernel cannot map it by huge pages.
fn map(fd: &OwnedFd, bytes: usize, access: ProtFlags) -> Result<NonNull<u8>, Errno> {
    let nowhere = std::ptr::null_mut();
    let base = if bytes < HUGE {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        unsafe { mmap(nowhere, bytes, access, MapFlags::SHARED, fd, 0) }?
    } else {
        let pages = bytes.next_multiple_of(rustix::param::page_size());
        let reserved = pages.checked_add(HUGE).ok_or(Errno::NOMEM)?;
        let reserve = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: as above; what is mapped over and what is given back is the range just reserved.
        unsafe {
            let start = mmap_anonymous(nowhere, reserved, ProtFlags::empty(), reserve)?;
            let before = start.cast::<u8>().align_offset(HUGE);
            let base = start.byte_add(before);
            let fixed = MapFlags::SHARED | MapFlags::FIXED;
            if let Err(errno) = mmap(base, bytes, access, fixed, fd, 0) {
                let _ = munmap(start, reserved);
                return Err(errno);
            }
            if before > 0 {
                munmap(start, before)?;
            }
            // Aligned to a page, `before` is less than what was reserved beyond `pages`.
            munmap(base.byte_add(pages), HUGE - before)?;
            base
        }
    };
    NonNull::new(base.cast()).ok_or(Errno::NOMEM)
}
