//! The one piece of memory in which a step computes.

use crate::Error;
use plumb_region::Region;
use std::ptr::NonNull;

/// Zeroed memory of a fixed size, page aligned, named for whoever takes a ledger of the process.
/// Pages cost nothing until they are touched.
#[derive(Debug)]
pub(crate) struct Arena {
    region: Region,
}

impl Arena {
    pub(crate) fn new(name: &str, bytes: usize) -> Result<Self, Error> {
        let region = Region::create(name, bytes.max(1)).map_err(Error::Memory)?;
        Ok(Self { region })
    }

    /// As [`new`](Self::new), for memory that is used whole: its pages are taken now, huge ones where
    /// there are some.
    pub(crate) fn whole(name: &str, bytes: usize) -> Result<Self, Error> {
        let arena = Self::new(name, bytes)?;
        arena.region.populate(0..bytes).map_err(Error::Memory)?;
        arena.region.collapse(0..bytes);
        Ok(arena)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.region.base()
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the region is ours to write, has `len` bytes, and `&mut self` makes the slice the
        // only one.
        unsafe { std::slice::from_raw_parts_mut(self.region.base().as_ptr(), self.region.len()) }
    }

    /// `len` floats from byte `offset` on.
    pub(crate) fn floats(&mut self, offset: usize, len: usize) -> &mut [f32] {
        let bytes = &mut self.bytes()[offset..offset + len * size_of::<f32>()];
        assert!(bytes.as_ptr().cast::<f32>().is_aligned());
        // SAFETY: as long and aligned as it says, and any bits are a float.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
    }
}
