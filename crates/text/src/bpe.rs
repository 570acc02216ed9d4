//! Byte-pair encoding (`gpt2` vocabularies): words are split off first, then bytes are joined in
//! the order of the file's merges.

use crate::merge::{Merger, Pairs, Symbol};
use crate::split::Splitter;
use crate::vocab::Vocab;
use crate::{Error, byte_chars};
use plumb_gguf::Gguf;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The merges, by the ids of their two sides. Ids past the vocabulary are steps on the way that
/// are no tokens themselves.
#[derive(Debug)]
pub(crate) struct Bpe {
    splitter: Splitter,
    /// The symbol that a byte starts as.
    bytes: Box<[u32; 256]>,
    merges: HashMap<(u32, u32), (u32, u32), BuildHasherDefault<PairHasher>>,
}

impl Bpe {
    pub fn read(gguf: &Gguf, vocab: &Vocab, splitter: Splitter) -> Result<Self, Error> {
        let lines = gguf.array("tokenizer.ggml.merges")?;
        let mut names = Names { vocab, others: HashMap::new() };
        let bytes = Box::new(std::array::from_fn(|byte| names.id(&[byte as u8])));
        let mut merges = HashMap::with_capacity_and_hasher(lines.len(), Default::default());
        for (rank, line) in lines.strings().enumerate() {
            let Some((left, right)) = sides(line) else { continue };
            let joined = names.id(&[left.as_slice(), &right].concat());
            let pair = (names.id(&left), names.id(&right));
            // A pair that is listed twice keeps its first rank.
            merges.entry(pair).or_insert((rank as u32, joined));
        }
        Ok(Self { splitter, bytes, merges })
    }

    /// Appends the tokens of a text that holds no special token.
    pub fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let whole_words = self.splitter.rules().whole_words;
        self.splitter.words(text, |word| {
            let word = word.as_bytes();
            match vocab.find(word) {
                Some(id) if whole_words => out.push(id),
                _ => self.word(vocab, word, merger, out),
            }
        });
    }

    fn word(&self, vocab: &Vocab, word: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        for (at, &byte) in word.iter().enumerate() {
            merger.push(at, 1, self.bytes[usize::from(byte)]);
        }
        let is_token = |id: &u32| (*id as usize) < vocab.len();
        for symbol in merger.run(word, self) {
            if is_token(&symbol.id) {
                out.push(symbol.id);
            } else {
                let bytes = &word[symbol.start as usize..][..symbol.len as usize];
                out.extend(bytes.iter().map(|&b| self.bytes[usize::from(b)]).filter(is_token));
            }
        }
    }
}

impl Pairs for Bpe {
    fn join(&self, _: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        self.merges.get(&(left.id, right.id)).copied()
    }
}

/// Gives byte strings ids: those of the vocabulary, and new ones past its end.
struct Names<'a> {
    vocab: &'a Vocab,
    others: HashMap<Vec<u8>, u32>,
}

impl Names<'_> {
    fn id(&mut self, bytes: &[u8]) -> u32 {
        self.vocab.find(bytes).unwrap_or_else(|| {
            let next = (self.vocab.len() + self.others.len()) as u32;
            *self.others.entry(bytes.to_vec()).or_insert(next)
        })
    }
}

/// The two sides of a merge: split at the first space that is not the first character.
fn sides(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let space = 1 + line.get(1..)?.iter().position(|&byte| byte == b' ')?;
    Some((byte_chars::decode(&line[..space])?, byte_chars::decode(&line[space + 1..])?))
}

/// Mixes a pair of ids with one multiplication: the keys are the model's own, and a prompt can
/// only look them up.
#[derive(Debug, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0.rotate_left(32) ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
