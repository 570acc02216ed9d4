//! What a pack file says about itself.

use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// Bytes before the weights: a page, so that they stay aligned.
pub(super) const HEADER: usize = 4096;

const MAGIC: &[u8; 8] = b"PLUMBPK1";
/// Bytes of the header that say something: magic, stamp, two digests.
const SAID: usize = 8 + 40 + 32 + 32;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u64; 5]);

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self([meta.len(), meta.dev(), meta.ino(), meta.mtime() as u64, meta.mtime_nsec() as u64])
    }
}

/// A pack file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The model's file, when it was packed.
    pub(super) stamp: Stamp,
    /// SHA-256 of the model's file.
    pub(super) digest: [u8; 32],
    /// How and what was packed.
    pub(super) layout: [u8; 32],
}

impl Header {
    /// The header of a file; `None` if it is not a pack file or its header is damaged.
    pub(super) fn read(file: &mut File) -> Option<Self> {
        let mut bytes = [0; SAID + 32];
        file.read_exact(&mut bytes).ok()?;
        let (said, check) = bytes.split_at(SAID);
        if &said[..8] != MAGIC || Sha256::digest(said)[..] != *check {
            return None;
        }
        let mut stamp = [0; 5];
        for (value, bytes) in stamp.iter_mut().zip(said[8..48].chunks_exact(8)) {
            *value = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let (digest, layout) = (said[48..80].try_into().ok()?, said[80..112].try_into().ok()?);
        Some(Self { stamp: Stamp(stamp), digest, layout })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut said = MAGIC.to_vec();
        said.extend(self.stamp.0.iter().flat_map(|value| value.to_le_bytes()));
        said.extend(self.digest);
        said.extend(self.layout);
        let check = Sha256::digest(&said);
        said.extend(check);
        said
    }
}
