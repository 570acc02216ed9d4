//! From text to tokens and back.

use crate::bpe::Bpe;
use crate::end::{ends, id_of};
use crate::merge::Merger;
use crate::special::{Fragment, SpecialTokens};
use crate::split::Splitter;
use crate::spm::Spm;
use crate::vocab::{Kind, Vocab, Writing};
use crate::{Detokenizer, Error};
use plumb_gguf::Gguf;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What [`Tokenizer::encode`] does about special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Put the start token before and the end token after, where the model wants them.
    pub add: bool,
    /// Take control tokens that the text spells out for what they say. For rendered templates;
    /// never for a text whose writer is not to be trusted.
    pub parse: bool,
}

/// A model's tokenizer. Cheap to share, holds no lock: encode from as many threads as you like.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    algorithm: Algorithm,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: BTreeSet<u32>,
    add_bos: bool,
    add_eos: bool,
    /// SentencePiece: a text starts with a space that it does not show.
    space_prefix: bool,
    longest: usize,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Bpe),
    Spm(Spm),
}

impl Tokenizer {
    /// The tokenizer of a model file. The file is not needed afterwards.
    ///
    /// # Errors
    /// If it has none, one of a kind that is not known here, or a damaged one.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        match gguf.str("tokenizer.ggml.model")? {
            "gpt2" => Self::bpe(gguf),
            "llama" => Self::spm(gguf),
            other => Err(Error::Model(other.to_owned())),
        }
    }

    fn bpe(gguf: &Gguf) -> Result<Self, Error> {
        let vocab = Vocab::read(gguf, Writing::ByteChars)?;
        let splitter = Splitter::new(gguf.get("tokenizer.ggml.pre")?.unwrap_or(""))?;
        let add_bos = splitter.rules().add_bos;
        let algorithm = Algorithm::Bpe(Bpe::read(gguf, &vocab, splitter)?);
        // 11 is Falcon's, for files older than the keys.
        Self::new(gguf, vocab, algorithm, Defaults { bos: 11, eos: 11, add_bos, prefix: false })
    }

    fn spm(gguf: &Gguf) -> Result<Self, Error> {
        let vocab = Vocab::read(gguf, Writing::SentencePiece)?;
        let unknown = id_of(gguf, &vocab, "tokenizer.ggml.unknown_token_id").or(Some(0));
        let algorithm = Algorithm::Spm(Spm::read(gguf, &vocab, unknown)?);
        Self::new(gguf, vocab, algorithm, Defaults { bos: 1, eos: 2, add_bos: true, prefix: true })
    }

    fn new(
        gguf: &Gguf,
        mut vocab: Vocab,
        algorithm: Algorithm,
        defaults: Defaults,
    ) -> Result<Self, Error> {
        let known = |id: u32| Some(id).filter(|&id| (id as usize) < vocab.len());
        let bos = id_of(gguf, &vocab, "tokenizer.ggml.bos_token_id").or(known(defaults.bos));
        let eos = id_of(gguf, &vocab, "tokenizer.ggml.eos_token_id").or(known(defaults.eos));
        let ends = ends(gguf, &mut vocab, eos);
        Ok(Self {
            special: SpecialTokens::new(&vocab)?,
            add_bos: gguf.get("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos),
            add_eos: gguf.get("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            space_prefix: gguf.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(defaults.prefix),
            longest: (0..vocab.len() as u32)
                .map(|id| vocab.piece(id).len())
                .max()
                .unwrap_or(1)
                .max(1),
            vocab,
            algorithm,
            bos,
            eos,
            ends,
        })
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if special.add && self.add_bos {
            out.extend(self.bos);
        }
        let (mut merger, mut after_special) = (Merger::default(), true);
        self.special.split(text, special.parse, |fragment| match fragment {
            Fragment::Token(id) => {
                out.push(id);
                after_special = true;
            }
            Fragment::Text(text) => {
                self.encode_fragment(text, after_special, &mut merger, &mut out);
                after_special = false;
            }
        });
        if special.add && self.add_eos {
            out.extend(self.eos);
        }
        out
    }

    fn encode_fragment(&self, text: &str, first: bool, merger: &mut Merger, out: &mut Vec<u32>) {
        match &self.algorithm {
            Algorithm::Bpe(bpe) => bpe.encode(&self.vocab, text, merger, out),
            Algorithm::Spm(spm) if first && self.space_prefix => {
                spm.encode(&self.vocab, &format!(" {text}"), merger, out);
            }
            Algorithm::Spm(spm) => spm.encode(&self.vocab, text, merger, out),
        }
    }

    /// The text of a whole sequence; control tokens are written out or left out. The space that
    /// SentencePiece put before the text is taken off again.
    pub fn decode(self: &Arc<Self>, ids: &[u32], special: bool) -> String {
        let mut detokenizer = Detokenizer::new(self).with_special(special);
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        if self.space_prefix && text.starts_with(' ') {
            text.remove(0);
        }
        text
    }

    /// What a token decodes to: any bytes, not always whole characters. Of a control token its
    /// name. Empty for an id that the vocabulary does not have.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocab.piece(id)
    }

    /// Bytes of the longest token: a text of so many times `n` has at least `n` tokens.
    pub fn longest_token(&self) -> usize {
        self.longest
    }

    /// How many tokens there are; ids are below it.
    pub fn len(&self) -> usize {
        self.vocab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a token ends a generation: every one that the model may end with, not only
    /// [`Tokenizer::eos`].
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// All tokens that end a generation, ascending.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().copied()
    }

    /// Whether a token steers the model and is no part of a text.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), Kind::Control | Kind::Unknown)
    }

    /// The start token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether [`Special::add`] puts the start token before a text.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }
}

/// What holds where the file does not say.
struct Defaults {
    bos: u32,
    eos: u32,
    add_bos: bool,
    prefix: bool,
}
