//! The engine agrees with llama.cpp, teacher-forced over a long text. Fixtures: `make oracle`.
//!
//! Both round activations to eight bits where weights are quantised. A sum that differs in its last
//! bit is now and again rounded a whole step apart, and a few layers later everything is: fed one
//! token at a time and fed in batches, llama.cpp prefers another token than *itself* at 4.4 % of
//! 2,048 positions (SmolLM2; up to 0.46 logits below its first) and 5.7 % (Gemma 3; up to 0.56), by
//! `itself` in `bench/oracle`. Rounding by llama.cpp's rules does not bring another engine nearer.
//! So there are two comparisons:
//!
//! - **widened**: weights widened to f32, where nobody rounds activations to eight bits. Whatever
//!   else the engine gets wrong shows, for the two agree as nearly as two orders of summation do.
//! - **as it is**: how far rounding takes the engine from the exact answers, held to how far it
//!   takes llama.cpp, and from llama.cpp's, held to little more than llama.cpp's own distance from
//!   itself.

mod common;

use common::Bench;
use common::models::{Real, root};
use common::widen;
use plumb_engine::sampling::greedy;
use plumb_engine::{EngineOptions, KvType, Model, Rows};
use serde_json::Value;
use std::sync::Arc;

const POSITIONS: usize = 2_000;
const SOME_POSITIONS: usize = 600;
const CHUNK: usize = 256;

/// What llama.cpp answered.
struct Answers {
    tokens: Vec<u32>,
    /// A line a position: log-probability of the next token, then ids and logits, best first.
    lines: Vec<Vec<Option<f64>>>,
}

impl Answers {
    fn read(name: &str, positions: usize) -> Self {
        let path = root().join("tests/fixtures/oracle").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let about: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let mut tokens: Vec<u32> = serde_json::from_value(about["tokens"].clone()).unwrap();
        tokens.truncate(positions);
        let lines: Vec<_> =
            lines.take(positions).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(tokens.len() == positions && lines.len() == positions);
        Self { tokens, lines }
    }

    /// What llama.cpp itself preferred and thought of the text.
    fn run(&self) -> Run {
        Run {
            preferred: self.lines.iter().map(|line| line[1].unwrap() as u32).collect(),
            // The last one is of a token that is not fed.
            log_probabilities: self.lines[..self.lines.len() - 1]
                .iter()
                .map(|line| line[0].unwrap())
                .collect(),
        }
    }

    /// How much less llama.cpp thinks of `token` than of its own first; infinitely less if the
    /// token is not among those that were kept.
    fn gap(&self, position: usize, token: u32) -> f64 {
        let mut ranked = self.lines[position][1..].chunks(2);
        let first = ranked.clone().next().unwrap()[1].unwrap();
        let found = ranked.find(|pair| pair[0] == Some(f64::from(token)));
        found.map_or(f64::INFINITY, |pair| first - pair[1].unwrap())
    }
}

/// One way through the text.
struct Run {
    preferred: Vec<u32>,
    log_probabilities: Vec<f64>,
}

impl Run {
    fn ours(model: &Arc<Model>, tokens: &[u32], kv: KvType) -> Self {
        let options = EngineOptions { threads: 2, max_logit_rows: CHUNK, kv, ..Default::default() };
        let mut bench = Bench::with(model, options, tokens.len().div_ceil(16));
        let mut sequence = bench.sequence(tokens.len());
        let (mut preferred, mut log_probabilities) = (Vec::new(), Vec::new());
        for chunk in tokens.chunks(CHUNK) {
            for row in bench.run(&mut sequence, chunk, Rows::All) {
                preferred.push(greedy(&row));
                let next = tokens.get(preferred.len());
                log_probabilities.extend(next.map(|&next| log_probability(&row, next)));
            }
        }
        Self { preferred, log_probabilities }
    }

    fn perplexity(&self) -> f64 {
        let sum: f64 = self.log_probabilities.iter().sum();
        (-sum / self.log_probabilities.len() as f64).exp()
    }

    fn distance(&self, from: &Answers) -> Distance {
        let gap = |(position, &token)| from.gap(position, token);
        let gaps: Vec<f64> = self.preferred.iter().enumerate().map(gap).collect();
        let share = |wanted: &dyn Fn(&f64) -> bool| {
            gaps.iter().filter(|gap| wanted(gap)).count() as f64 / gaps.len() as f64
        };
        Distance {
            other: share(&|&gap| gap > 0.0),
            far: share(&|&gap| gap >= 0.2),
            worst: gaps.iter().copied().fold(0.0, f64::max),
            perplexity: self.perplexity() / from.run().perplexity(),
        }
    }
}

/// How far a run is from llama.cpp's.
#[derive(Debug)]
struct Distance {
    /// Share of the positions with another likeliest token.
    other: f64,
    /// Share of the positions whose token is 0.2 logits or more below the exact first.
    far: f64,
    /// The greatest such gap.
    worst: f64,
    /// Ratio of the perplexities.
    perplexity: f64,
}

fn log_probability(row: &[f32], token: u32) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from((x - max).exp())).sum();
    f64::from(row[token as usize] - max) - sum.ln()
}

fn agrees(model: Real, name: &str) {
    let exact = Answers::read(&format!("logits.{name}.f32.jsonl"), POSITIONS);
    let ours =
        Run::ours(&widen::load(&model.path()), &exact.tokens, KvType::Int16).distance(&exact);
    println!("{name} widened: {ours:.4?}");
    // What is asked is 0.02, 0.2 and 0.01; what two orders of summation make is far less.
    assert!(ours.other <= 0.005 && ours.worst < 0.02, "{ours:?}");
    assert!((ours.perplexity - 1.0).abs() < 0.001, "{ours:?}");
}

fn agrees_as_it_is(model: Real, name: &str) {
    let exact = Answers::read(&format!("logits.{name}.f32.jsonl"), POSITIONS);
    let peer = Answers::read(&format!("logits.{name}.jsonl"), POSITIONS);
    assert_eq!(exact.tokens, peer.tokens);
    let run = Run::ours(&model.load(), &exact.tokens, KvType::Int16);
    let (ours, theirs) = (run.distance(&exact), peer.run().distance(&exact));
    println!("{name}: ours {ours:.4?}, llama.cpp's own {theirs:.4?}");
    let apart = run.distance(&peer);
    println!("{name}: ours from llama.cpp's {apart:.4?}");
    assert!(apart.other <= 0.065 && apart.far <= 0.02 && apart.worst < 0.9, "{apart:?}");
    assert!(ours.other <= theirs.other * 1.2, "{ours:?} against {theirs:?}");
    assert!(ours.other <= 0.045 && ours.far <= 0.005 && ours.worst < 0.7, "{ours:?}");
    assert!((ours.perplexity - 1.0).abs() < 0.01, "{ours:?}");
    assert!((apart.perplexity - 1.0).abs() < 0.01, "{apart:?}");
}

/// What a cache of bytes adds to the rounding of weights and activations. Over 2,000 positions: another
/// token is likeliest at 4.8 % of them with SmolLM2 and 5.9 % with Gemma 3, which has one key head a
/// layer, of 256; perplexity 0.6 % above the exact answers', 0.05 and 0.7 % above those of 16 bits.
fn agrees_with_bytes_in_the_cache(model: Real, name: &str) {
    let exact = Answers::read(&format!("logits.{name}.f32.jsonl"), SOME_POSITIONS);
    let run = Run::ours(&model.load(), &exact.tokens, KvType::Int8);
    let ours = run.distance(&exact);
    println!("{name}, int8: {ours:.4?}");
    assert!(ours.other <= 0.08 && ours.far <= 0.03 && ours.worst < 0.9, "{ours:?}");
    assert!((ours.perplexity - 1.0).abs() < 0.01, "{ours:?}");
}

#[test]
fn smollm_agrees_with_bytes_in_the_cache() {
    agrees_with_bytes_in_the_cache(Real::SmolLm2, "smollm2");
}

#[test]
fn gemma_agrees_with_bytes_in_the_cache() {
    agrees_with_bytes_in_the_cache(Real::Gemma3, "gemma3");
}

#[test]
fn smollm_agrees() {
    agrees(Real::SmolLm2, "smollm2");
}

#[test]
fn gemma_agrees() {
    agrees(Real::Gemma3, "gemma3");
}

#[test]
fn smollm_agrees_as_it_is() {
    agrees_as_it_is(Real::SmolLm2, "smollm2");
}

#[test]
fn gemma_agrees_as_it_is() {
    agrees_as_it_is(Real::Gemma3, "gemma3");
}
