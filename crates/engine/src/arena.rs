//! The one piece of memory in which a step computes.

use crate::Error;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::NonNull;

/// Zeroed memory of a fixed size, page aligned. Pages cost nothing until they are touched.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives a pointer, whose users make their own promises.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(bytes: usize) -> Result<Self, Error> {
        let len = bytes.max(1);
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags) }
            .map_err(|error| Error::system(format!("no memory for {len} bytes of arena"), error))?;
        let base = NonNull::new(base.cast()).expect("mmap never returns null");
        Ok(Self { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has `len` bytes, and `&mut self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// `len` floats from byte `offset` on.
    pub(crate) fn floats(&mut self, offset: usize, len: usize) -> &mut [f32] {
        assert!(
            offset.is_multiple_of(size_of::<f32>()) && offset + len * size_of::<f32>() <= self.len
        );
        // SAFETY: inside the mapping, aligned, and `&mut self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset).cast(), len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing borrowed from it outlives it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
