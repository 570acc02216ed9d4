//! Tokenizer, detokenizer and chat template, all from a GGUF file.
//!
//! Knows text and token ids. Must never know HTTP.
//!
//! # Design
//! A text becomes tokens in three steps, each a file of its own:
//! `special` finds the tokens that stand in it as they are; `split` cuts what is left into words
//! (BPE only); `merge` joins neighbours, best first, for `bpe` and `spm` alike, which only say what
//! may be joined. `vocab` holds every token's bytes once, and `index` finds a token by them.
//! `end` knows which tokens end a generation. Nothing here is quadratic in a text's length.
//!
//! Back again, [`Detokenizer`] gives out whole characters only.
//!
//! [`ChatTemplate`] renders messages as Hugging Face's `apply_chat_template` does. The rendered
//! text holds its own start token: encode it with `Special { add: false, parse: true }`.
//!
//! llama.cpp is the oracle: `tests/oracle.rs` compares with what it answered.
#![forbid(unsafe_code)]

mod bpe;
mod byte_chars;
mod detokenizer;
mod end;
mod error;
mod index;
mod merge;
mod special;
mod split;
mod spm;
mod template;
mod tokenizer;
mod vocab;

pub use detokenizer::Detokenizer;
pub use error::Error;
pub use template::ChatTemplate;
pub use tokenizer::{Special, Tokenizer};
