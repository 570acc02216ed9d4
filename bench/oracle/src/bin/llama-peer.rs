//! `llama-peer --model FILE [--threads N] [--prefill TOKENS] [--decode STEPS] [--repeat R]`:
//! how fast llama.cpp is with a model, as one JSON object.
//!
//! Prefill is a prompt in one sequence; decode is greedy, one sequence and eight, after a prompt of
//! `prefill` tokens each. Wall and CPU seconds are medians over the repetitions.

use anyhow::{Context as _, Result, bail};
use plumb_oracle::{Input, Model, Session, Settings};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

struct Options {
    model: PathBuf,
    threads: i32,
    prefill: usize,
    decode: usize,
    repeat: usize,
}

fn main() -> Result<()> {
    let options = options()?;
    let model = Model::load(&options.model, false)?;
    let report = json!({
        "engine": "llama.cpp",
        "model": options.model.file_name().map(|name| name.to_string_lossy()),
        "threads": options.threads,
        "prefill": prefill(&model, &options)?,
        "decode_1": decode(&model, &options, 1)?,
        "decode_8": decode(&model, &options, 8)?,
    });
    println!("{report}");
    Ok(())
}

fn options() -> Result<Options> {
    let (mut model, mut threads, mut prefill, mut decode, mut repeat) = (None, 1, 512, 64, 3);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--model" => model = Some(PathBuf::from(value)),
            "--threads" => threads = value.parse()?,
            "--prefill" => prefill = value.parse()?,
            "--decode" => decode = value.parse()?,
            "--repeat" => repeat = value.parse()?,
            _ => bail!("unknown option {name}"),
        }
    }
    Ok(Options { model: model.context("--model is missing")?, threads, prefill, decode, repeat })
}

fn session<'m>(model: &'m Model, options: &Options, sequences: u32) -> Result<Session<'m>> {
    model.session(Settings {
        threads: options.threads,
        context: (options.prefill + options.decode + 1) as u32,
        sequences,
        batch: options.prefill.max(8) as u32,
    })
}

/// A prompt of ordinary tokens that does not repeat itself.
fn prompt(model: &Model, len: usize) -> Vec<u32> {
    let vocab = model.vocab_len() as u64;
    (0..len as u64).map(|i| (1000 + i * 7919 % (vocab - 2000)) as u32).collect()
}

fn feed(session: &mut Session<'_>, tokens: &[u32], sequence: usize) -> Result<()> {
    let last = tokens.len() - 1;
    let input = |(position, &token)| Input { token, position, sequence, logits: position == last };
    session.decode(&tokens.iter().enumerate().map(input).collect::<Vec<_>>())
}

fn prefill(model: &Model, options: &Options) -> Result<Value> {
    let mut session = session(model, options, 1)?;
    let tokens = prompt(model, options.prefill);
    feed(&mut session, &tokens, 0)?;
    let mut timings = Vec::new();
    for _ in 0..options.repeat {
        session.clear();
        timings.push(timed(|| feed(&mut session, &tokens, 0))?);
    }
    Ok(summary(timings, tokens.len()))
}

fn decode(model: &Model, options: &Options, sequences: usize) -> Result<Value> {
    let mut session = session(model, options, sequences as u32)?;
    let tokens = prompt(model, options.prefill);
    let mut timings = Vec::new();
    for _ in 0..options.repeat {
        session.clear();
        for sequence in 0..sequences {
            feed(&mut session, &tokens, sequence)?;
        }
        timings.push(timed(|| steps(&mut session, options, sequences))?);
    }
    Ok(summary(timings, sequences * options.decode))
}

fn steps(session: &mut Session<'_>, options: &Options, sequences: usize) -> Result<()> {
    let mut next = vec![1000; sequences];
    for step in 0..options.decode {
        let position = options.prefill + step;
        let input = |(sequence, &token)| Input { token, position, sequence, logits: true };
        session.decode(&next.iter().enumerate().map(input).collect::<Vec<_>>())?;
        for (sequence, token) in next.iter_mut().enumerate() {
            *token = argmax(session.logits(sequence)?);
        }
    }
    Ok(())
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

/// Wall and CPU seconds of all threads.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    Ok((wall.elapsed().as_secs_f64(), cpu_seconds() - cpu))
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux; the pointer is to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn summary(timings: Vec<(f64, f64)>, tokens: usize) -> Value {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let wall = median(timings.iter().map(|t| t.0).collect());
    let cpu = median(timings.iter().map(|t| t.1).collect());
    json!({
        "tokens": tokens,
        "wall_s": wall,
        "cpu_s": cpu,
        "tokens_per_s": tokens as f64 / wall,
        "tokens_per_cpu_s": tokens as f64 / cpu,
    })
}
