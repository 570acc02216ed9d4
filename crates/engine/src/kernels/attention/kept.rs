//! Where a block keeps one head of one layer.

use super::prefetch::touch;
use super::product::{Element, Pair};

/// The numbers of a layer are the K of all heads, each `[head_dim / 2][token]` pairs of dimensions, then
/// the V of all heads, each `[token / 2][head_dim]` pairs of tokens. Its factors lie elsewhere, one a
/// token: of the K of a head, of its V, of the next head's K.
///
/// They are apart so that numbers fill whole pages: a core that reads a few KiB here and there waits
/// for the addresses of pages more than for anything else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<E> {
    pub(crate) keys: *mut Pair<E>,
    pub(crate) values: *mut Pair<E>,
    pub(crate) key_factors: *mut f32,
    pub(crate) value_factors: *mut f32,
}

impl<E: Element> Kept<E> {
    /// Head `head` of `heads` in a layer of a block of `tokens`, by where the layer's numbers and
    /// factors begin.
    pub(crate) fn of(
        [numbers, factors]: [*mut u8; 2],
        head: usize,
        heads: usize,
        dim: usize,
        tokens: usize,
    ) -> Self {
        let side = Self::side_bytes(dim, tokens);
        let factors = factors.cast::<f32>().wrapping_add(2 * head * tokens);
        Self {
            keys: numbers.wrapping_add(head * side).cast(),
            values: numbers.wrapping_add((heads + head) * side).cast(),
            key_factors: factors,
            value_factors: factors.wrapping_add(tokens),
        }
    }

    /// Asks for the factors of 16 tokens, of which there is a line each.
    pub(crate) fn ask_factors(&self) {
        touch(self.key_factors.cast());
        touch(self.value_factors.cast());
    }

    /// Bytes of the K of a head in a block; as many as of its V.
    pub(crate) fn side_bytes(dim: usize, tokens: usize) -> usize {
        tokens * dim * size_of::<E>()
    }
}
