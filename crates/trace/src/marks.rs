//! Whether what lies in a block of CPython's is still the object that was seen there.

/// The first words of a block, and whether all of it is one object that the collector does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Where the block begins and how large it is: a pool that was empty may get blocks of another size.
    pub block: (u64, u64),
    /// As many as there are; zero beyond.
    pub words: [u64; MARK_WORDS],
    /// Then it begins with its count of references and its type, and what follows hardly changes.
    pub is_plain: bool,
}

/// Words of a [`Mark`].
pub const MARK_WORDS: usize = 8;

impl Mark {
    /// Whether this may still be the same object. What took its place is mostly of another type, which is
    /// the second word, or, behind two of the collector's, the fourth; numbers and strings of one type
    /// differ in what they hold. They change their count of references, and keep a hash once asked for it.
    pub fn is_still(&self, now: &Self) -> bool {
        const REFERENCES: usize = 0;
        const HASH: usize = 3;
        let same = |i: usize| self.words[i] == now.words[i];
        if self.block != now.block {
            return false;
        }
        if self.is_plain {
            let fixed = (0..MARK_WORDS).filter(|i| ![REFERENCES, HASH].contains(i));
            return now.words[REFERENCES] != 0 && fixed.into_iter().all(same);
        }
        same(1) || same(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_known_by_what_does_not_change() {
        let mark = |words, is_plain| Mark { block: (64, 48), words, is_plain };
        let changed = |at: &[usize], is_plain| {
            let mut words = [7; MARK_WORDS];
            at.iter().for_each(|i| words[*i] = 8);
            mark([7; MARK_WORDS], is_plain).is_still(&mark(words, is_plain))
        };
        assert!(changed(&[0, 1, 2, 4], false) && changed(&[0, 3, 4], false));
        assert!(!changed(&[1, 3], false));
        let moved = Mark { block: (48, 304), ..mark([7; MARK_WORDS], false) };
        assert!(!mark([7; MARK_WORDS], false).is_still(&moved));
        assert!(changed(&[0, 3], true) && !changed(&[6], true) && !changed(&[1], true));
    }
}
