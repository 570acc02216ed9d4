//! The GGUF file: metadata, tensors, block types.
//!
//! Knows the file format and nothing that is done with it: no arithmetic on weights beyond
//! dequantising a block for reference. Must never know models, text or engines.
//!
//! # Design
//! [`Gguf::open`] maps the file and checks everything that the header claims against the file's
//! length once: after it, every lookup is a slice of the mapping and cannot fail for reasons of
//! bounds. Nothing is copied but keys and names, so a vocabulary of 262,144 strings costs no heap.
//!
//! - `file`: opening, lookups, the digest; pages are given back by dropping the [`Gguf`], or a
//!   tensor at a time with [`Gguf::release`].
//! - `parse`: the header, read by a cursor that refuses to leave the file.
//! - `value`: metadata values, borrowed from the mapping.
//! - `block`: tensor types and their sizes; [`dequant`]: the reference for every one of them.
//! - [`writer`]: writes small files, for tests and tools.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod block;
pub mod dequant;
mod error;
mod file;
mod parse;
mod value;
pub mod writer;

pub use block::BlockType;
pub use error::Error;
pub use file::{Gguf, TensorInfo};
pub use value::{Array, FromValue, Value, ValueType};
