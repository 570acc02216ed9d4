//! Tokens a second of one model: prefill, decode of one sequence, decode of eight.
//!
//! `cargo run --release -p plumb-engine --example speed -- MODEL [THREADS] [PROMPT] [--profile]`
//!
//! Medians of wall time; the machine's other work is in them.

use plumb_engine::{Engine, EngineOptions, KvType, LoadOptions, Model, Rows, Slice};
use plumb_kv::{BlockId, Pool};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const DECODES: usize = 48;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let profile = args.iter().any(|arg| arg == "--profile");
    args.retain(|arg| !arg.starts_with("--"));
    let model = args.first().ok_or("usage: speed MODEL [THREADS] [PROMPT] [--profile]")?;
    let threads = args.get(1).map_or(Ok(1), |n| n.parse())?;
    let prompt = args.get(2).map_or(Ok(512), |n| n.parse())?;
    let start = Instant::now();
    let model = Model::load(Path::new(model), &LoadOptions::default())?;
    println!("load                   {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    for (name, sequences, prompt, decodes) in [
        ("prefill", 1, prompt, 0),
        ("decode, batch 1", 1, 64, DECODES),
        ("decode, batch 8", 8, 64, DECODES),
    ] {
        let options = EngineOptions {
            threads,
            max_context: prompt + DECODES,
            max_batch_tokens: 512,
            profile,
            ..EngineOptions::default()
        };
        let mut run = Run::new(&model, options, sequences)?;
        let (rate, steps, rows) =
            if decodes == 0 { run.prefill(prompt)? } else { run.decode(prompt, decodes)? };
        println!("{name:<22} {rate:8.1} tokens/s");
        if profile {
            println!("{}", run.engine.explain().profile(rows as u64, steps as u64));
        }
    }
    Ok(())
}

struct Run {
    engine: Engine,
    pool: std::sync::Arc<Pool>,
    sequences: Vec<Vec<BlockId>>,
    _blocks: Vec<plumb_kv::Block>,
}

impl Run {
    fn new(
        model: &std::sync::Arc<Model>,
        options: EngineOptions,
        sequences: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let shape = model.kv_shape(options.block_tokens, KvType::F16);
        let each = options.max_context.div_ceil(options.block_tokens);
        let pool = Pool::new("speed", shape, each * sequences)?;
        let blocks = pool.allocate(each * sequences)?;
        let ids: Vec<BlockId> = blocks.iter().map(plumb_kv::Block::id).collect();
        let sequences = ids.chunks(each).map(<[BlockId]>::to_vec).collect();
        Ok(Self { engine: Engine::new(model.clone(), options)?, pool, sequences, _blocks: blocks })
    }

    fn fill(&mut self, sequence: usize, tokens: &[u32]) -> Result<(), plumb_engine::Error> {
        for (i, chunk) in tokens.chunks(512).enumerate() {
            let blocks = &self.sequences[sequence];
            let slice = Slice { tokens: chunk, start: i * 512, blocks, logits: Rows::Last };
            self.engine.step(&self.pool, &[slice])?;
        }
        Ok(())
    }

    /// Tokens a second, steps and rows in all.
    fn prefill(&mut self, prompt: usize) -> Result<(f64, usize, usize), plumb_engine::Error> {
        const ROUNDS: usize = 7;
        let tokens: Vec<u32> = (0..prompt as u32).map(|i| 100 + i % 1000).collect();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            self.fill(0, &tokens)?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok((prompt as f64 / median(times), ROUNDS * prompt.div_ceil(512), ROUNDS * prompt))
    }

    fn decode(
        &mut self,
        prompt: usize,
        decodes: usize,
    ) -> Result<(f64, usize, usize), plumb_engine::Error> {
        let tokens: Vec<u32> = (0..prompt as u32).map(|i| 100 + i).collect();
        let count = self.sequences.len();
        for sequence in 0..count {
            self.fill(sequence, &tokens)?;
        }
        let mut times = Vec::new();
        for i in 0..decodes {
            let slices: Vec<Slice<'_>> = self
                .sequences
                .iter()
                .map(|blocks| Slice {
                    tokens: &[1000],
                    start: prompt + i,
                    blocks,
                    logits: Rows::Last,
                })
                .collect();
            let start = Instant::now();
            self.engine.step(&self.pool, &slices)?;
            times.push(start.elapsed().as_secs_f64());
        }
        // What the prompts took is in the profile too.
        Ok((count as f64 / median(times), decodes + count, count * (decodes + prompt)))
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
