//! Tokenizer, detokenizer and chat template, all from a GGUF file.
//!
//! Knows text and token ids. Must never know HTTP.
#![forbid(unsafe_code)]
