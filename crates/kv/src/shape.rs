//! What a block is made of.

/// The bytes of one layer within a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Bytes of this layer in one block: its K, then its V, laid out as the engine likes.
    pub bytes: usize,
    /// Sliding-window attention: a query at position `p` reads keys at `p - window + 1 ..= p`.
    /// `None`: it reads all of them.
    pub window: Option<u32>,
}

/// A block: the K and V of `tokens` consecutive tokens in every layer, layer after layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// First layer first.
    pub layers: Vec<LayerShape>,
    /// Tokens in a block.
    pub tokens: usize,
}

/// A shape that no pool can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block needs tokens and layers of at least one byte each, and less than 1 GiB in all")]
pub struct ShapeError;

/// Blocks start on cache lines.
const ALIGN: usize = 64;
const MAX_BLOCK_BYTES: usize = 1 << 30;

impl BlockShape {
    /// Where each layer starts within a block, and the bytes of a block, both multiples of 64.
    ///
    /// # Errors
    /// [`ShapeError`] for a shape without tokens, layers or bytes, or of 1 GiB and more.
    pub fn layout(&self) -> Result<(Vec<usize>, usize), ShapeError> {
        if self.tokens == 0 || self.layers.is_empty() || self.layers.iter().any(|l| l.bytes == 0) {
            return Err(ShapeError);
        }
        let mut end = 0usize;
        let mut offsets = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            offsets.push(end);
            end = end
                .checked_add(layer.bytes)
                .and_then(|end| end.checked_next_multiple_of(ALIGN))
                .filter(|&end| end < MAX_BLOCK_BYTES)
                .ok_or(ShapeError)?;
        }
        Ok((offsets, end))
    }
}
