//! A thread's own memory: for tiles, and for a row that nobody reads but to quantise it.

use super::product::Pair;
use super::softmax::Seen;
use super::{CHUNK, TILE_ROWS};

/// Room for the largest tile and the widest row.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Queries `[row][head_dim]` in integers, and a factor a row.
    pub(super) queries: Vec<Pair<i16>>,
    pub(super) query_factors: Vec<f32>,
    /// Scores `[row][CHUNK]`.
    pub(super) scores: Vec<f32>,
    /// Weights `[row][CHUNK]` in integers, and a factor a row.
    pub(super) weights: Vec<Pair<i16>>,
    pub(super) weight_factors: Vec<f32>,
    /// Running outputs `[row][head_dim]`.
    pub(super) so_far: Vec<f32>,
    pub(super) seen: Vec<Seen>,
    /// Of each row in a chunk: the places that it sees, and what its output is corrected by.
    pub(super) visible: Vec<(usize, usize)>,
    pub(super) corrections: Vec<f32>,
    /// A row of any width.
    pub(crate) row: Vec<f32>,
}

impl Scratch {
    pub(crate) fn new(head_dim: usize, widest: usize) -> Self {
        Self {
            queries: vec![[0; 2]; TILE_ROWS * head_dim / 2],
            query_factors: vec![0.0; TILE_ROWS],
            scores: vec![0.0; TILE_ROWS * CHUNK],
            weights: vec![[0; 2]; TILE_ROWS * CHUNK / 2],
            weight_factors: vec![0.0; TILE_ROWS],
            so_far: vec![0.0; TILE_ROWS * head_dim],
            seen: vec![Seen::NOTHING; TILE_ROWS],
            visible: vec![(0, 0); TILE_ROWS],
            corrections: vec![0.0; TILE_ROWS],
            row: vec![0.0; widest],
        }
    }

    /// Bytes of one such scratch.
    pub(crate) fn bytes(head_dim: usize, widest: usize) -> usize {
        widest * size_of::<f32>()
            + TILE_ROWS
                * (size_of::<f32>() * (CHUNK + head_dim + 3)
                    + size_of::<i16>() * (CHUNK + head_dim)
                    + size_of::<(usize, usize)>()
                    + size_of::<Seen>())
    }
}
