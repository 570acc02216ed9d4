//! Sequences that are prefilled and decoded, with a clock.

use crate::options::Options;
use plumb_engine::{Engine, EngineOptions, LoadOptions, Model, PlanReport, Rows, Slice, sampling};
use plumb_kv::{Block, BlockId, LayerShape, Pool};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long some tokens took.
pub struct Timing {
    pub tokens: usize,
    /// Seconds.
    pub wall: f64,
    /// Seconds of all threads.
    pub cpu: f64,
}

/// A model, an engine, and sequences of a fixed length.
pub struct Session {
    model: Arc<Model>,
    engine: Engine,
    pool: Arc<Pool>,
    _blocks: Vec<Block>,
    tables: Vec<Vec<BlockId>>,
    next: Vec<u32>,
}

impl Session {
    pub fn new(path: &Path, options: &Options, sequences: usize, tokens: usize) -> Result<Self> {
        Self::with(path, options, sequences, tokens, false)
    }

    /// As `new`, with every operation timed.
    pub fn profiled(
        path: &Path,
        options: &Options,
        sequences: usize,
        tokens: usize,
    ) -> Result<Self> {
        Self::with(path, options, sequences, tokens, true)
    }

    /// What was done since the last time.
    pub fn take_profile(&mut self) -> PlanReport {
        let report = self.engine.explain();
        self.engine.forget_profile();
        report
    }

    fn with(
        path: &Path,
        options: &Options,
        sequences: usize,
        tokens: usize,
        profile: bool,
    ) -> Result<Self> {
        let model = Model::load(path, &LoadOptions::default())?;
        let engine_options = EngineOptions {
            threads: options.threads,
            max_seqs: sequences,
            max_context: tokens,
            cpus: options.cpus.clone(),
            kv: options.kv,
            profile,
            ..EngineOptions::default()
        };
        let each = tokens.div_ceil(engine_options.block_tokens);
        let shape = model.kv_shape(engine_options.block_tokens, options.kv);
        let pool = Pool::new("bench", shape, each * sequences)?;
        let blocks = pool.allocate(each * sequences)?;
        let tables = blocks.chunks(each).map(|b| b.iter().map(Block::id).collect()).collect();
        let engine = Engine::new(model.clone(), engine_options)?;
        Ok(Self { model, engine, pool, _blocks: blocks, tables, next: vec![0; sequences] })
    }

    pub fn weight_bytes(&self) -> usize {
        self.model.weight_bytes()
    }

    /// Bytes of keys and values that a token reads with so many before it.
    pub fn kv_bytes(&self, context: usize) -> f64 {
        let options = self.engine.options();
        let shape = self.model.kv_shape(options.block_tokens, options.kv);
        let layer = |layer: &LayerShape| {
            let seen = layer.window.map_or(context, |window| context.min(window as usize));
            layer.bytes as f64 / options.block_tokens as f64 * seen as f64
        };
        shape.layers.iter().map(layer).sum()
    }

    /// Computes a prompt of ordinary tokens, in steps as long as the engine takes.
    pub fn prefill(&mut self, sequence: usize, tokens: usize) -> Result<Timing> {
        self.extend(sequence, 0, tokens)
    }

    /// Computes `tokens` tokens of a prompt from position `start` on.
    pub fn extend(&mut self, sequence: usize, start: usize, tokens: usize) -> Result<Timing> {
        let vocab = self.model.config().vocab as u64;
        let prompt: Vec<u32> = (start as u64..(start + tokens) as u64)
            .map(|i| (1000 + i * 7919 % (vocab - 2000)) as u32)
            .collect();
        let most = self.engine.options().max_batch_tokens;
        timed(tokens, || {
            for (i, tokens) in prompt.chunks(most).enumerate() {
                let last = (i + 1) * most >= prompt.len();
                let slice = Slice {
                    tokens,
                    start: start + i * most,
                    blocks: &self.tables[sequence],
                    logits: if last { Rows::Last } else { Rows::None },
                };
                let mut logits = self.engine.step(&self.pool, &[slice])?;
                if last {
                    self.next[sequence] = sampling::greedy(logits.row(0));
                }
            }
            Ok(())
        })
    }

    /// Greedy steps of the first `sequences` sequences together, from position `start` on.
    pub fn decode(&mut self, sequences: usize, start: usize, steps: usize) -> Result<Timing> {
        timed(sequences * steps, || {
            for step in 0..steps {
                let slices: Vec<Slice<'_>> = (0..sequences)
                    .map(|sequence| Slice {
                        tokens: std::slice::from_ref(&self.next[sequence]),
                        start: start + step,
                        blocks: &self.tables[sequence],
                        logits: Rows::Last,
                    })
                    .collect();
                let mut logits = self.engine.step(&self.pool, &slices)?;
                let next: Vec<u32> = logits.rows().map(|row| sampling::greedy(row)).collect();
                self.next[..sequences].copy_from_slice(&next);
            }
            Ok(())
        })
    }
}

fn timed(tokens: usize, work: impl FnOnce() -> Result<()>) -> Result<Timing> {
    let (start, before) = (Instant::now(), cpu_seconds());
    work()?;
    Ok(Timing { tokens, wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - before })
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
