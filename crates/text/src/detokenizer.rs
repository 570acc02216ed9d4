//! Tokens to text as they come, whole characters only.

use crate::Tokenizer;
use std::sync::Arc;

/// Turns the tokens of one generation into text. A character may be spread over several tokens:
/// its bytes are held back until it is whole, so that every piece that comes out is valid by
/// itself and the pieces add up to the whole text, however the tokens are cut.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The start of a character; at most three bytes.
    held: Vec<u8>,
    special: bool,
}

impl Detokenizer {
    /// For text that continues a prompt: a leading space is kept, control tokens are left out.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer), held: Vec::new(), special: false }
    }

    /// Whether control tokens are written out.
    pub fn with_special(self, special: bool) -> Self {
        Self { special, ..self }
    }

    /// Adds a token; what can be said for certain now. Bytes that no character can begin with, or
    /// that break one off, become U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        if !self.special && self.tokenizer.is_control(id) {
            return String::new();
        }
        self.held.extend(self.tokenizer.token_bytes(id));
        let mut out = String::new();
        let whole = self.held.len() - incomplete_tail(&self.held);
        for chunk in self.held[..whole].utf8_chunks() {
            out.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..whole);
        out
    }

    /// The end: a character that stayed incomplete becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&held).into_owned()
    }
}

/// How many bytes at the end may still become a character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&len| match std::str::from_utf8(&bytes[bytes.len() - len..]) {
            // No error length: the only thing wrong is that it ends too early.
            Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
            Ok(_) => false,
        })
        .unwrap_or(0)
}
