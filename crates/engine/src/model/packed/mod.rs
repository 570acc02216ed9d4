//! The packed weights of one file, once a host.
//!
//! Packing writes a **pack file**: a header, then every matrix in the kernels' order. All instances
//! map it read-only and shared, so that they hold one copy in the page cache, and the next start
//! finds it there. The GGUF file's own pages are given back while they are packed.
//!
//! - `layout`: which matrix lies where, and a fingerprint of how it is packed.
//! - `header`: what a pack file says about itself.
//! - `place`: beside the model, in `$PLUMB_CACHE`, or in `/dev/shm`.
//! - `build`: writing one under a lock, renamed into place when whole.

mod build;
mod header;
mod layout;
mod place;

pub(super) use layout::Layout;

use crate::Error;
use crate::arena::Arena;
use header::{HEADER, Header, Stamp};
use plumb_gguf::Gguf;
use plumb_region::Region;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;

/// Where packed weights are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PackFile {
    /// Beside the model; where that cannot be written, in `$PLUMB_CACHE`, or in `/dev/shm`.
    #[default]
    Shared,
    /// Nowhere: packed into memory of this process alone, at every start.
    None,
}

/// Packed weights in memory.
#[derive(Debug)]
pub(super) struct Packed {
    memory: Memory,
    pub(super) digest: [u8; 32],
}

#[derive(Debug)]
enum Memory {
    /// Mapped from a pack file.
    Shared(Region),
    /// This process's own.
    Own(Arena),
}

impl Packed {
    /// The packed weights of a file: found, built and shared, or built for this process alone.
    pub(super) fn obtain(
        model: &Path,
        gguf: &Gguf,
        layout: &Layout<'_>,
        keep: &PackFile,
    ) -> Result<Self, Error> {
        if *keep == PackFile::Shared {
            let source = Source::new(model, gguf, layout)?;
            for place in place::candidates(model, layout) {
                match source.obtain_in(&place) {
                    Ok(packed) => return Ok(packed),
                    Err(error) => {
                        tracing::info!(place = %place.display(), %error, "packed weights cannot be kept here");
                    }
                }
            }
            tracing::warn!("packed weights cannot be shared: this instance holds its own copy");
        }
        let mut own = Arena::whole("weights", layout.bytes())?;
        layout.pack(gguf, own.bytes())?;
        Ok(Self { memory: Memory::Own(own), digest: gguf.digest() })
    }

    /// The first packed byte, aligned to a cache line.
    pub(super) fn base(&self) -> NonNull<u8> {
        match &self.memory {
            // SAFETY: the header lies before the weights; its length is checked at opening.
            Memory::Shared(region) => unsafe { region.base().add(HEADER) },
            Memory::Own(arena) => arena.base(),
        }
    }
}

/// What a pack file must be of.
struct Source<'a> {
    stamp: Stamp,
    /// Whose the model's file is.
    owner: u32,
    gguf: &'a Gguf,
    layout: &'a Layout<'a>,
}

impl<'a> Source<'a> {
    fn new(model: &Path, gguf: &'a Gguf, layout: &'a Layout<'a>) -> Result<Self, Error> {
        let meta = std::fs::metadata(model).map_err(|source| {
            Error::system(format!("cannot look at {}", model.display()), source)
        })?;
        Ok(Self { stamp: Stamp::of(&meta), owner: meta.uid(), gguf, layout })
    }

    fn obtain_in(&self, path: &Path) -> Result<Packed, Error> {
        if let Some(found) = self.find(path) {
            return Ok(found);
        }
        let _lock = build::lock(path)?;
        // Another instance may have built it while this one waited.
        if let Some(found) = self.find(path) {
            return Ok(found);
        }
        build::build(path, self.stamp, self.gguf, self.layout)?;
        self.find(path).ok_or_else(|| {
            Error::Options(format!("{} changed while it was written", path.display()))
        })
    }

    /// The file at `path`, if it is whole, of this model, and packed as this engine packs.
    fn find(&self, path: &Path) -> Option<Packed> {
        let mut file = File::open(path).ok()?;
        let header = Header::read(&mut file)?;
        let meta = file.metadata().ok()?;
        // In a folder where anybody may write, a stranger's file could hold other weights.
        let trusted = [rustix::process::geteuid().as_raw(), 0, self.owner].contains(&meta.uid());
        let whole = meta.len() == (HEADER + self.layout.bytes()) as u64;
        if !trusted || !whole || header.layout != self.layout.fingerprint() {
            return None;
        }
        // A model that was copied or touched keeps its pack file: its contents decide then.
        if header.stamp != self.stamp {
            if header.digest != self.gguf.digest() {
                return None;
            }
            if let Err(error) = build::stamp(&file, &Header { stamp: self.stamp, ..header.clone() })
            {
                tracing::info!(%error, "the model is read whole at each start: its pack file is of another copy, and cannot be written");
            }
        }
        let region = Region::map_file("weights", file).ok()?;
        Some(Packed { memory: Memory::Shared(region), digest: header.digest })
    }
}
