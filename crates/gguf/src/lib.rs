//! The GGUF file: metadata, tensors, block types.
//!
//! Knows the file format and nothing that is done with it: no arithmetic on weights beyond
//! dequantising a block for reference.
