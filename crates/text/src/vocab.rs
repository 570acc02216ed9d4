//! The vocabulary: what every token is and what it decodes to.

use crate::index::Index;
use crate::{Error, byte_chars};
use plumb_gguf::{Array, Gguf, Value};

/// How a vocabulary writes its entries (`tokenizer.ggml.model`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// `gpt2`: GPT-2's characters for bytes.
    ByteChars,
    /// `llama`: UTF-8 with `▁` for a space, and `<0xNN>` for single bytes.
    SentencePiece,
}

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    /// Stands for text that the model cannot write.
    Unknown,
    /// Steers the model: never part of a text.
    Control,
    /// A text that is always one token, found before anything else.
    UserDefined,
    Unused,
    /// One byte of a character that has no token (`<0xNN>`).
    Byte,
}

/// All tokens. Ids are positions in the file's list.
#[derive(Debug)]
pub(crate) struct Vocab {
    /// What each token decodes to, one after the other; `ends[id]` is where it ends.
    pieces: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    index: Index,
    longest: usize,
    /// Tokens that merging never arrives at.
    special: Vec<u32>,
}

impl Vocab {
    pub fn read(gguf: &Gguf, writing: Writing) -> Result<Self, Error> {
        let tokens = gguf.array("tokenizer.ggml.tokens")?;
        if tokens.strings().count() != tokens.len() {
            return Err(Error::Vocabulary("the tokens are not strings".into()));
        }
        let kinds = kinds(gguf, tokens.len())?;
        let mut vocab = Self {
            pieces: Vec::new(),
            ends: Vec::with_capacity(tokens.len()),
            kinds,
            index: Index::with_capacity(tokens.len()),
            longest: 0,
            special: Vec::new(),
        };
        for (id, text) in tokens.strings().enumerate() {
            vocab.add(id, text, writing)?;
        }
        Ok(vocab)
    }

    fn add(&mut self, id: usize, text: &[u8], writing: Writing) -> Result<(), Error> {
        let Entry { piece, findable } = Entry::new(text, self.kinds[id], writing);
        self.pieces.extend(&piece);
        let end = u32::try_from(self.pieces.len())
            .map_err(|_| Error::Vocabulary("over 4 GiB of tokens".into()))?;
        self.ends.push(end);
        if findable {
            self.longest = self.longest.max(piece.len());
            let (pieces, ends) = (&self.pieces, &self.ends);
            self.index.insert(&piece, id as u32, |id| slice(pieces, ends, id));
        } else {
            self.special.push(id as u32);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// What a token decodes to; empty for an id that there is not.
    pub fn piece(&self, id: u32) -> &[u8] {
        slice(&self.pieces, &self.ends, id)
    }

    /// `Unused` for an id that there is not.
    pub fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    pub fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// The token that decodes to exactly these bytes.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        // Longer texts need no hashing: what keeps merging linear in a text's length.
        if bytes.len() > self.longest {
            return None;
        }
        self.index.get(bytes, |id| self.piece(id))
    }

    /// The token whose text is exactly this, of whatever kind; the lowest of several.
    pub fn find_text(&self, text: &str) -> Option<u32> {
        self.find(text.as_bytes())
            .or_else(|| self.special.iter().copied().find(|&id| self.piece(id) == text.as_bytes()))
    }

    /// Every id.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.ends.len() as u32
    }
}

/// One entry of the file's list, read.
struct Entry {
    piece: Vec<u8>,
    /// Whether merging may arrive at it. Control tokens it never may: text that merely looks like
    /// one must not become one.
    findable: bool,
}

impl Entry {
    fn new(text: &[u8], kind: Kind, writing: Writing) -> Self {
        let literal = |findable| Self { piece: text.to_vec(), findable };
        match (kind, writing) {
            (Kind::Unused, _) => Self { piece: Vec::new(), findable: false },
            (Kind::Control | Kind::Unknown, _) => literal(false),
            // One with a space is found only as a whole, before merging.
            (Kind::UserDefined, _) => literal(!text.is_empty() && !text.contains(&b' ')),
            (Kind::Byte, _) => match byte_token(text) {
                Some(byte) => Self { piece: vec![byte], findable: false },
                None => literal(false),
            },
            (Kind::Normal, Writing::ByteChars) => match byte_chars::decode(text) {
                Some(piece) => Self { findable: !piece.is_empty(), piece },
                None => literal(false),
            },
            (Kind::Normal, Writing::SentencePiece) => {
                let piece = unescape(text);
                Self { findable: !piece.is_empty(), piece }
            }
        }
    }
}

/// The byte that a text of the form `<0xNN>` names.
pub(crate) fn byte_token(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// SentencePiece writes a space as `▁`.
fn unescape(text: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = "▁".as_bytes();
    let mut piece = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(MARK) {
            piece.push(b' ');
            rest = after;
        } else {
            piece.push(first);
            rest = tail;
        }
    }
    piece
}

/// `tokenizer.ggml.token_type`, numbered as `enum llama_token_type`; all normal where absent.
fn kinds(gguf: &Gguf, count: usize) -> Result<Vec<Kind>, Error> {
    let key = "tokenizer.ggml.token_type";
    let Some(types) = gguf.get::<Array<'_>>(key)? else { return Ok(vec![Kind::Normal; count]) };
    if types.len() < count {
        return Err(Error::Vocabulary(format!("{} types for {count} tokens", types.len())));
    }
    let kind = |value| match value {
        Value::Int(1) => Kind::Normal,
        Value::Int(2) => Kind::Unknown,
        Value::Int(3) => Kind::Control,
        Value::Int(4) => Kind::UserDefined,
        Value::Int(6) => Kind::Byte,
        _ => Kind::Unused,
    };
    Ok(types.iter().take(count).map(kind).collect())
}

fn slice<'a>(pieces: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let id = id as usize;
    let Some(&end) = ends.get(id) else { return &[] };
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &pieces[start as usize..end as usize]
}
