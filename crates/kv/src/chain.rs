//! The name of a block's content: a hash over everything that its K and V depend on.

use sha2::{Digest, Sha256};

/// Names the content of one full block: all tokens from the start of the sequence to the block's
/// end, and a salt that keeps apart what must not be shared.
///
/// SHA-256 is collision resistant: equal hashes mean equal tokens, also when a client chooses them
/// with intent, so a hit needs no comparison of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHash {
    pub(crate) digest: [u8; 32],
    /// Blocks before the next one in the chain: children are evicted before their parents.
    pub(crate) depth: u32,
}

impl ChainHash {
    /// The start of every chain with this salt (tenant, adapter, …).
    #[must_use]
    pub fn root(salt: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"plumb kv chain 1\0").chain_update(salt);
        Self { digest: digest.finalize().into(), depth: 0 }
    }

    /// The hash of the block that follows this one and holds `tokens`.
    #[must_use]
    pub fn next(&self, tokens: &[u32]) -> Self {
        let mut digest = Sha256::new().chain_update(self.digest);
        for token in tokens {
            digest.update(token.to_le_bytes());
        }
        Self { digest: digest.finalize().into(), depth: self.depth.saturating_add(1) }
    }

    /// The hashes of the full blocks of `tokens`, first block first.
    pub fn of<'a>(
        tokens: &'a [u32],
        block_tokens: usize,
        salt: &[u8],
    ) -> impl Iterator<Item = Self> + use<'a> {
        tokens.chunks_exact(block_tokens.max(1)).scan(Self::root(salt), |hash, block| {
            *hash = hash.next(block);
            Some(*hash)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ChainHash;

    #[test]
    fn a_hash_names_salt_and_every_token_before() {
        let hash = |tokens: &[u32], salt: &[u8]| ChainHash::of(tokens, 2, salt).last().unwrap();
        let base = hash(&[1, 2, 3, 4], b"");
        assert_eq!(base, hash(&[1, 2, 3, 4, 5], b""), "a rest is no block");
        for (tokens, salt) in [
            ([1, 2, 3, 5], &b""[..]),
            ([9, 2, 3, 4], b""),
            ([3, 4, 1, 2], b""),
            ([1, 2, 3, 4], b"tenant"),
        ] {
            assert_ne!(base, hash(&tokens, salt), "{tokens:?} {salt:?}");
        }
        assert_eq!(ChainHash::of(&[1, 2, 3], 4, b"").count(), 0);
    }
}
