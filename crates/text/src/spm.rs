//! SentencePiece (`llama` vocabularies): characters are joined by the score of the token that
//! they would become; what has no token is written as its bytes.

use crate::Error;
use crate::merge::{Merger, Pairs, Symbol};
use crate::vocab::{Vocab, byte_token};
use plumb_gguf::{Array, Gguf, Value};

/// Ids past the vocabulary mean "no token".
const NO_TOKEN: u32 = u32::MAX;

/// Scores and byte tokens.
#[derive(Debug)]
pub(crate) struct Spm {
    /// Smaller for a higher score.
    priorities: Vec<u32>,
    /// The tokens of single bytes.
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
    /// The bytes behind which some token goes on with a space. Behind all others a space starts a
    /// word that nothing joins to what is before it: merged by itself, it stays in the cache.
    joined: Box<[bool; 256]>,
}

impl Spm {
    pub fn read(gguf: &Gguf, vocab: &Vocab, unknown: Option<u32>) -> Result<Self, Error> {
        let mut bytes = Box::new([NO_TOKEN; 256]);
        for (id, text) in gguf.array("tokenizer.ggml.tokens")?.strings().enumerate() {
            if let Some(byte) = byte_token(text) {
                bytes[usize::from(byte)] = id as u32;
            }
        }
        let mut joined = Box::new([false; 256]);
        for piece in vocab.ids().map(|id| vocab.piece(id)) {
            spaces(piece).for_each(|at| joined[usize::from(piece[at - 1])] = true);
        }
        Ok(Self { priorities: priorities(gguf, vocab.len())?, bytes, unknown, joined })
    }

    /// Appends the tokens of a text that holds no special token.
    pub fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        // A literal `▁` is a space to SentencePiece.
        let text = text.replace('▁', " ");
        let mut start = 0;
        let bytes = text.as_bytes();
        let ends = spaces(bytes).filter(|&at| !self.joined[usize::from(bytes[at - 1])]);
        for end in ends.chain([text.len()]) {
            self.word(vocab, &text[start..end], merger, out);
            start = end;
        }
    }

    fn word(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        for (at, c) in text.char_indices() {
            let bytes = &text.as_bytes()[at..at + c.len_utf8()];
            merger.push(at, bytes.len(), vocab.find(bytes).unwrap_or(NO_TOKEN));
        }
        for symbol in merger.run(text.as_bytes(), &Scored { spm: self, vocab }) {
            if symbol.id == NO_TOKEN {
                let bytes = &text.as_bytes()[symbol.start as usize..][..symbol.len as usize];
                out.extend(bytes.iter().filter_map(|&byte| self.byte(vocab, byte)));
            } else {
                out.push(symbol.id);
            }
        }
    }

    fn byte(&self, vocab: &Vocab, byte: u8) -> Option<u32> {
        let id = self.bytes[usize::from(byte)];
        if id != NO_TOKEN { Some(id) } else { vocab.find(&[byte]).or(self.unknown) }
    }
}

/// Where a space follows another character.
fn spaces(text: &[u8]) -> impl Iterator<Item = usize> {
    let pairs = text.windows(2).enumerate();
    pairs.filter(|(_, pair)| pair[0] != b' ' && pair[1] == b' ').map(|(at, _)| at + 1)
}

struct Scored<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
}

impl Pairs for Scored<'_> {
    fn join(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let len = left.len as usize + right.len as usize;
        let id = self.vocab.find(&text[left.start as usize..][..len])?;
        Some((self.spm.priorities[id as usize], id))
    }
}

/// `tokenizer.ggml.scores`, as numbers that order the other way round; all the same where absent.
fn priorities(gguf: &Gguf, count: usize) -> Result<Vec<u32>, Error> {
    let Some(scores) = gguf.get::<Array<'_>>("tokenizer.ggml.scores")? else {
        return Ok(vec![0; count]);
    };
    if scores.len() < count {
        return Err(Error::Vocabulary(format!("{} scores for {count} tokens", scores.len())));
    }
    let score = |value| match value {
        Value::Float(x) => x as f32,
        Value::Int(n) => n as f32,
        _ => 0.0,
    };
    Ok(scores.iter().take(count).map(|value| !ordered(score(value))).collect())
}

/// Bits that compare as the number does; both zeros are one.
fn ordered(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn order_is_kept() {
        let ascending = [f32::NEG_INFINITY, -1000.0, -1.5, 0.0, 1e-9, 2.0, f32::INFINITY];
        assert!(ascending.windows(2).all(|w| ordered(w[0]) < ordered(w[1])));
        assert_eq!(ordered(-0.0), ordered(0.0));
    }
}
