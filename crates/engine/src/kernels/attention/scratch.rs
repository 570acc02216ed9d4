//! A thread's own memory for tiles.

use super::softmax::Seen;
use super::{CHUNK, TILE_ROWS};

/// Room for the largest tile.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Scaled queries `[row][head_dim]`.
    pub(super) queries: Vec<f32>,
    /// Scores, then weights, `[row][CHUNK]`.
    pub(super) weights: Vec<f32>,
    /// Running outputs `[row][head_dim]`.
    pub(super) so_far: Vec<f32>,
    pub(super) seen: Vec<Seen>,
}

impl Scratch {
    pub(crate) fn new(head_dim: usize) -> Self {
        Self {
            queries: vec![0.0; TILE_ROWS * head_dim],
            weights: vec![0.0; TILE_ROWS * CHUNK],
            so_far: vec![0.0; TILE_ROWS * head_dim],
            seen: vec![Seen::NOTHING; TILE_ROWS],
        }
    }

    /// Bytes of one such scratch.
    pub(crate) fn bytes(head_dim: usize) -> usize {
        size_of::<f32>() * TILE_ROWS * (CHUNK + 2 * head_dim + 2)
    }
}
