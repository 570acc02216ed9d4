//! Every family, with random weights, against a plain implementation in double precision.

mod common;

use common::Bench;
use common::reference;
use common::tiny::{Tiny, VOCAB};
use plumb_engine::{LoadOptions, Model};
use plumb_gguf::{BlockType, Gguf};

/// The greatest difference of any logit, over the spread of the reference's logits.
fn difference(tiny: &Tiny) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny.write(dir.path());
    let tokens: Vec<u32> = (0..90).map(|i| (i * 37 + i * i) % VOCAB as u32).collect();
    let want = reference::logits(&Gguf::open(&path).unwrap(), &tokens);
    let model = Model::load(&path, &LoadOptions::default()).unwrap();
    let got = Bench::new(&model, 1, 8).every_row(&tokens, 33);
    let all: Vec<f64> = want.iter().flatten().copied().collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let spread = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    let differences =
        got.iter().flatten().zip(&all).map(|(got, want)| (f64::from(*got) - want).abs());
    assert_eq!(got.len(), want.len());
    differences.fold(0.0, f64::max) / spread
}

/// Keys and values are integers of 16 bits: what is left is their rounding.
const HALVES: f64 = 4e-3;

#[test]
fn llama() {
    let difference = difference(&Tiny::llama());
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn llama_with_frequency_divisors_and_without_a_head() {
    let difference = difference(&Tiny { divisors: true, head: false, ..Tiny::llama() });
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn llama_stretched_linearly() {
    let extra = vec![("rope.scaling.factor", 4.0)];
    let difference = difference(&Tiny { scaling: Some("linear"), extra, ..Tiny::llama() });
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn qwen2() {
    let difference = difference(&Tiny::qwen2());
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn qwen3() {
    let difference = difference(&Tiny::qwen3());
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn gemma3() {
    let difference = difference(&Tiny::gemma3());
    assert!(difference < HALVES, "{difference}");
}

#[test]
fn other_types_differ_by_their_rounding_alone() {
    // The reference reads the same rounded weights: only the activations' eight bits are left.
    for (ty, most) in [(BlockType::F16, HALVES), (BlockType::BF16, HALVES), (BlockType::Q8_0, 0.15)]
    {
        let difference = difference(&Tiny { ty, ..Tiny::llama() });
        assert!(difference < most, "{ty}: {difference}");
    }
}
