//! What the tests of whole models share.

#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod models;
pub mod reference;
pub mod tiny;
pub mod widen;

use plumb_engine::{Engine, EngineOptions, Model, Rows, Slice};
use plumb_kv::{Block, BlockId, Pool};
use std::sync::Arc;

/// An engine with a pool of its own.
pub struct Bench {
    pub engine: Engine,
    pub pool: Arc<Pool>,
}

impl Bench {
    /// Room for `blocks` blocks of 16 tokens.
    pub fn new(model: &Arc<Model>, threads: usize, blocks: usize) -> Self {
        let options = EngineOptions {
            threads,
            max_logit_rows: 256,
            max_context: model.config().context.min(4096),
            ..EngineOptions::default()
        };
        Self::with(model, options, blocks)
    }

    pub fn with(model: &Arc<Model>, options: EngineOptions, blocks: usize) -> Self {
        let shape = model.kv_shape(options.block_tokens, options.kv);
        let pool = Pool::new("engine-test", shape, blocks).unwrap();
        Self { engine: Engine::new(model.clone(), options).unwrap(), pool }
    }

    /// An empty sequence with room for `tokens`.
    pub fn sequence(&self, tokens: usize) -> Sequence {
        let blocks =
            self.pool.allocate(tokens.div_ceil(self.engine.options().block_tokens)).unwrap();
        let ids = blocks.iter().map(Block::id).collect();
        Sequence { _blocks: blocks, ids, len: 0 }
    }

    /// Computes one slice of a sequence and returns the logits asked for.
    pub fn run(&mut self, sequence: &mut Sequence, tokens: &[u32], logits: Rows) -> Vec<Vec<f32>> {
        let slice = Slice { tokens, start: sequence.len, blocks: &sequence.ids, logits };
        let mut out = self.engine.step(&self.pool, &[slice]).unwrap();
        sequence.len += tokens.len();
        out.rows().map(|row| row.to_vec()).collect()
    }

    /// Logits of every position of a text, in chunks.
    pub fn every_row(&mut self, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
        let mut sequence = self.sequence(tokens.len());
        let chunks = tokens.chunks(chunk);
        chunks.flat_map(|chunk| self.run(&mut sequence, chunk, Rows::All)).collect()
    }

    /// The greedy continuation of a prompt.
    pub fn greedy(&mut self, prompt: &[u32], tokens: usize) -> Vec<u32> {
        let mut sequence = self.sequence(prompt.len() + tokens);
        let mut logits = Vec::new();
        for chunk in prompt.chunks(self.engine.options().max_batch_tokens) {
            logits = self.run(&mut sequence, chunk, Rows::Last);
        }
        let mut out = vec![plumb_engine::sampling::greedy(&logits[0])];
        while out.len() < tokens {
            let logits = self.run(&mut sequence, &out[out.len() - 1..], Rows::Last);
            out.push(plumb_engine::sampling::greedy(&logits[0]));
        }
        out
    }
}

/// A sequence and its blocks.
pub struct Sequence {
    _blocks: Vec<Block>,
    pub ids: Vec<BlockId>,
    pub len: usize,
}

/// The bits of rows, for comparisons that must be exact.
pub fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}
