//! `itself FILE TEXT TOKENS`: how far llama.cpp is from itself over the first tokens of a text, fed
//! in batches of 256 and fed one token at a time.
//!
//! The two differ in the order of sums alone; rounding activations to eight bits carries a
//! difference in the last bit of one layer to whole steps in the layers after it. No other engine
//! can be asked to be nearer than this.

use anyhow::{Context as _, Result, bail};
use plumb_oracle::{Input, Model, Settings};
use std::path::Path;

const BATCH: usize = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, text, count] = &arguments[..] else { bail!("usage: itself FILE TEXT TOKENS") };
    let model = Model::load(Path::new(file), false)?;
    let text = std::fs::read_to_string(text).with_context(|| text.clone())?;
    let mut tokens = model.tokenize(&text, true, false)?;
    tokens.truncate(count.parse()?);
    let mut alone = Vec::new();
    run(&model, &tokens, 1, |_, row| alone.push(first(row)))?;
    let mut gaps = Vec::new();
    run(&model, &tokens, BATCH, |position, row| {
        gaps.push(row[first(row)] - row[alone[position]]);
    })?;
    let share = |least: f32| {
        let count = gaps.iter().filter(|&&gap| gap > 0.0 && gap >= least).count();
        100.0 * count as f64 / gaps.len() as f64
    };
    println!(
        "{} positions: another first at {:.2} %, 0.2 logits or more below at {:.2} %, at most {:.3}",
        gaps.len(),
        share(0.0),
        share(0.2),
        gaps.iter().copied().fold(0.0, f32::max),
    );
    Ok(())
}

/// Hands the logits of every position of a text to `each`.
fn run(
    model: &Model,
    tokens: &[u32],
    batch: usize,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let context = tokens.len() as u32 + 8;
    let settings = Settings { threads: 1, context, sequences: 1, batch: batch as u32 };
    let mut session = model.session(settings)?;
    for (chunk, tokens) in tokens.chunks(batch).enumerate() {
        let before = chunk * batch;
        let input = |(i, &token)| Input { token, position: before + i, sequence: 0, logits: true };
        session.decode(&tokens.iter().enumerate().map(input).collect::<Vec<_>>())?;
        for i in 0..tokens.len() {
            each(before + i, session.logits(i)?);
        }
    }
    Ok(())
}

fn first(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}
