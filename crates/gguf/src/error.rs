//! What can be wrong with a file.

use std::path::PathBuf;

/// Why a GGUF file, or a key of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first bytes are not `GGUF`.
    #[error("not a GGUF file: it does not start with the bytes `GGUF`")]
    Magic,
    /// A version that is neither 2 nor 3, or a file of the other byte order.
    #[error(
        "GGUF version {0} is not supported (2 and 3, little-endian, are): convert the model again"
    )]
    Version(u32),
    /// The header claims more than the file holds.
    #[error("the file ends inside {0}: it is truncated or damaged, download it again")]
    Truncated(&'static str),
    /// The header contradicts itself or the format.
    #[error("damaged GGUF header: {0}")]
    Invalid(String),
    /// A tensor of a type that Plumb does not compute with.
    #[error(
        "tensor `{tensor}` has type {ty}, which is not supported: use a file of \
         F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K"
    )]
    TensorType {
        /// The tensor's name.
        tensor: String,
        /// The type's name in ggml, or its number.
        ty: String,
    },
    /// One file of a model that was split into several.
    #[error("the model is split into {0} files: merge them first (llama-gguf-split --merge)")]
    Split(u64),
    /// A key that is needed is absent.
    #[error("the file has no `{0}`")]
    Missing(String),
    /// A key holds another type than it should, or a number out of range.
    #[error("`{key}` should be {wanted}, but is {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What was wanted.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
}
