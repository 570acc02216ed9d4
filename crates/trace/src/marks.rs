//! Whether what lies in a block of CPython's is still the object that was seen there.

/// The first words of a block, and where in it an object begins, if one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Where the block begins and how large it is: a pool that was empty may get blocks of another size.
    pub block: (u64, u64),
    /// As many as there are; zero beyond.
    pub words: [u64; MARK_WORDS],
    /// Which word is its count of references, with its type behind it; `None` for what is no object.
    pub head: Option<usize>,
}

/// Words of a [`Mark`].
pub const MARK_WORDS: usize = 8;

/// A string's or a number's hash, kept once it was asked for.
const HASH: usize = 3;

impl Mark {
    /// Whether what lies there `now` may be the same. What took an object's place is mostly of another type.
    /// Numbers and strings never change what they hold; they keep a hash once asked for it.
    pub fn may_be(&self, now: &[u64; MARK_WORDS]) -> bool {
        let same = |i: usize| self.words[i] == now[i];
        match self.head {
            // Behind one word, or behind three, there may be a type.
            None => same(1) || same(3),
            Some(head) if !is_count(now[head]) || !same(head + 1) => false,
            Some(0) => (1..MARK_WORDS).filter(|i| *i != HASH).all(same),
            Some(_) => true,
        }
    }

    /// The block's size, and the object's type.
    pub fn class(&self) -> (u64, u64) {
        (self.block.1, self.head.map_or(0, |head| self.words[head + 1]))
    }

    /// What it holds, beside an object's count, its type and the collector's links.
    pub fn contents(&self) -> impl Iterator<Item = u64> {
        let own = self.head.map_or(0..0, |head| head.saturating_sub(2)..head + 2);
        let words = self.words.into_iter().enumerate();
        words.filter(move |(i, _)| !own.contains(i)).map(|(_, word)| word)
    }
}

/// Whether a word can be the count of an object that lives. Since 3.14 the upper half holds flags in
/// its upper half.
pub fn is_count(word: u64) -> bool {
    word as u32 != 0 && word >> 32 & 0xffff == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_be(head: Option<usize>, changes: &[(usize, u64)]) -> bool {
        let mut words = [1, 4096, 2, 8192, 7, 7, 9, 0];
        if head == Some(2) {
            words = [4096, 8192, 1, 1 << 20, 7, 21, 0, 0];
        }
        let then = Mark { block: (64, 48), words, head };
        changes.iter().for_each(|(i, word)| words[*i] = *word);
        then.may_be(&words)
    }

    #[test]
    fn what_never_changes_is_known_by_what_it_holds() {
        assert!(may_be(Some(0), &[(0, 5), (3, 77)]));
        assert!(!may_be(Some(0), &[(4, 8)]) && !may_be(Some(0), &[(1, 8)]));
        // A link of free blocks, and none.
        assert!(!may_be(Some(0), &[(0, 0x7f00_1234_5670)]) && !may_be(Some(0), &[(0, 0)]));
    }

    #[test]
    fn what_the_collector_knows_may_change() {
        assert!(may_be(Some(2), &[(0, 5), (1, 5), (2, 9), (4, 1)]));
        assert!(!may_be(Some(2), &[(2, 0)]) && !may_be(Some(2), &[(3, 5)]));
    }

    #[test]
    fn what_is_no_object_is_known_by_what_may_be_its_type() {
        assert!(may_be(None, &[(1, 5)]) && !may_be(None, &[(1, 5), (3, 5)]));
    }
}
