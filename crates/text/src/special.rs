//! Tokens that are found in a text as they stand, before anything is merged.

use crate::Error;
use crate::vocab::{Kind, Vocab};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Two automata: texts of users may hold only user-defined tokens, rendered templates all of them.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    all: Finder,
    user_defined: Finder,
}

#[derive(Debug)]
struct Finder {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// What a text falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

impl SpecialTokens {
    pub fn new(vocab: &Vocab) -> Result<Self, Error> {
        let steering = [Kind::Control, Kind::Unknown, Kind::UserDefined];
        Ok(Self {
            all: Finder::new(vocab, &steering)?,
            user_defined: Finder::new(vocab, &[Kind::UserDefined])?,
        })
    }

    /// Calls `each` with the fragments of a text in order. `parse` is whether control tokens are
    /// looked for; of several that begin at one place the longest is taken.
    pub fn split<'t>(&self, text: &'t str, parse: bool, mut each: impl FnMut(Fragment<'t>)) {
        let finder = if parse { &self.all } else { &self.user_defined };
        let mut done = 0;
        for found in finder.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            if found.start() > done {
                each(Fragment::Text(&text[done..found.start()]));
            }
            each(Fragment::Token(finder.ids[found.pattern().as_usize()]));
            done = found.end();
        }
        if done < text.len() {
            each(Fragment::Text(&text[done..]));
        }
    }
}

impl Finder {
    fn new(vocab: &Vocab, kinds: &[Kind]) -> Result<Self, Error> {
        // Only whole UTF-8: the text between two tokens must stay a text.
        let wanted = |id: &u32| {
            let piece = vocab.piece(*id);
            kinds.contains(&vocab.kind(*id))
                && !piece.is_empty()
                && std::str::from_utf8(piece).is_ok()
        };
        let ids: Vec<u32> = vocab.ids().filter(wanted).collect();
        let automaton = if ids.is_empty() {
            None
        } else {
            // The compact kind: Gemma has 6,414 of these tokens.
            let built = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(ids.iter().map(|&id| vocab.piece(id)));
            Some(built.map_err(|error| Error::Vocabulary(error.to_string()))?)
        };
        Ok(Self { automaton, ids })
    }
}
