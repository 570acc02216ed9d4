//! Where a block keeps one head of one layer.

use super::product::Element;

/// K of all heads of a layer, each `[head_dim][token]`, then V of all heads, each `[token][head_dim]`,
/// then, of elements that have them, a factor a token for the K of each head, and for the V.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<E> {
    pub(crate) keys: *mut E,
    pub(crate) values: *mut E,
    /// Anything where elements have no factors, as the next.
    pub(crate) key_factors: *mut f32,
    pub(crate) value_factors: *mut f32,
}

impl<E: Element> Kept<E> {
    /// Head `head` of `heads` in a layer that begins at `layer`, of a block of `tokens`.
    pub(crate) fn of(layer: *mut u8, head: usize, heads: usize, dim: usize, tokens: usize) -> Self {
        let one = dim * tokens;
        let keys = layer.cast::<E>();
        let factors = keys.wrapping_add(2 * heads * one).cast::<f32>();
        Self {
            keys: keys.wrapping_add(head * one),
            values: keys.wrapping_add((heads + head) * one),
            key_factors: factors.wrapping_add(head * tokens),
            value_factors: factors.wrapping_add((heads + head) * tokens),
        }
    }

    /// Bytes of a layer in a block of `tokens`.
    pub(crate) fn layer_bytes(heads: usize, dim: usize, tokens: usize) -> usize {
        let factors = if E::SCALED { size_of::<f32>() } else { 0 };
        2 * heads * tokens * (dim * size_of::<E>() + factors)
    }
}
