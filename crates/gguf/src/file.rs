//! An open file: lookups, data, digest, and giving pages back.

use crate::parse::{self, Header};
use crate::value::{Array, FromValue, Value};
use crate::{BlockType, Error};
use memmap2::{Mmap, UncheckedAdvice};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// A GGUF file, mapped and checked. Dropping it gives the mapping's pages back.
///
/// The file must not be truncated while it is open: touching pages that are gone raises SIGBUS.
pub struct Gguf {
    map: Mmap,
    header: Header,
}

/// A tensor's place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Elements a dimension in ggml's order: `dims[0]` is the row's length, contiguous in memory.
    /// One to four, none of them 0.
    pub dims: Vec<usize>,
    /// How the elements are stored.
    pub ty: BlockType,
    /// Byte range within the file.
    pub(crate) range: Range<usize>,
}

impl TensorInfo {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Rows: all dimensions but the first, multiplied.
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }
}

impl Gguf {
    /// Maps the file and checks its header against its length.
    ///
    /// # Errors
    /// If it cannot be read, is not GGUF 2 or 3, is damaged, is one part of several, or has a
    /// tensor of a type that is not in [`BlockType`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private. Its one hazard, a file changed underneath,
        // is stated in the type's documentation; no reference is handed out as anything but bytes,
        // for which every content is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let header = parse::header(&map)?;
        let gguf = Self { map, header };
        match gguf.get::<u64>("split.count")? {
            Some(parts) if parts > 1 => Err(Error::Split(parts)),
            _ => Ok(gguf),
        }
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The value of a key.
    pub fn meta(&self, key: &str) -> Option<Value<'_>> {
        let (_, entry) = &self.header.metadata[*self.header.keys.get(key)?];
        entry.read(&self.map)
    }

    /// Every key, in the file's order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.header.metadata.iter().map(|(key, _)| key.as_str())
    }

    /// A key that may be absent, as a Rust type.
    ///
    /// # Errors
    /// [`Error::WrongType`] if it is there as something else.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.meta(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::WrongType {
                key: key.to_owned(),
                wanted: T::WANTED,
                found: value.describe(),
            }),
        }
    }

    /// A key that must be there, as a Rust type.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::WrongType`].
    pub fn need<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, Error> {
        self.get(key)?.ok_or_else(|| Error::Missing(key.to_owned()))
    }

    /// A string that must be there. Errors as [`Gguf::need`].
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        self.need(key)
    }

    /// An integer that must be there. Errors as [`Gguf::need`].
    pub fn u32(&self, key: &str) -> Result<u32, Error> {
        self.need(key)
    }

    /// A number that must be there. Errors as [`Gguf::need`].
    pub fn f32(&self, key: &str) -> Result<f32, Error> {
        self.need(key)
    }

    /// A boolean that must be there. Errors as [`Gguf::need`].
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        self.need(key)
    }

    /// An array that must be there. Errors as [`Gguf::need`].
    pub fn array(&self, key: &str) -> Result<Array<'_>, Error> {
        self.need(key)
    }

    /// `general.architecture`, such as `llama`; empty where the file does not say.
    pub fn architecture(&self) -> &str {
        self.str("general.architecture").unwrap_or("")
    }

    /// Every tensor, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.names.get(name).map(|&at| &self.header.tensors[at])
    }

    /// A tensor's bytes: rows of whole blocks, one after the other.
    ///
    /// # Panics
    /// If `tensor` is of another, longer file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.map[tensor.range.clone()]
    }

    /// Where tensor data begins in the file.
    pub fn data_offset(&self) -> usize {
        self.header.data
    }

    /// The file's length in bytes.
    pub fn file_bytes(&self) -> usize {
        self.map.len()
    }

    /// SHA-256 of the whole file: two instances with the same digest have the same weights. Reads
    /// every page, so ask once and keep the answer.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.map).into()
    }

    /// Gives the pages of a tensor's data back to the system; reading it again reads the file.
    /// A loader that has repacked a tensor calls this so that it never holds the model twice.
    ///
    /// # Errors
    /// What `madvise` said.
    pub fn release(&self, tensor: &TensorInfo) -> std::io::Result<()> {
        let Range { start, end } = tensor.range;
        // SAFETY: the mapping is a file's, private and never written: dropped pages come back from
        // the file with the same content, so that references into it stay valid.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) }
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.header.version)
            .field("architecture", &self.architecture())
            .field("keys", &self.header.metadata.len())
            .field("tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}
