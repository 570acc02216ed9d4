//! Every family and every tensor type agrees with llama.cpp, on small models of random weights.
//! Fixtures: `make oracle`.

mod common;

use common::Bench;
use common::models::root;
use plumb_engine::{LoadOptions, Model};
use serde_json::Value;

/// RMS of the differences over RMS of the logits. Both sides round activations to eight bits where
/// weights are quantised, each in its own way; where they are not, llama.cpp rounds to f16.
fn tolerance(name: &str) -> f64 {
    if name.ends_with("-float") { 0.01 } else { 0.03 }
}

fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, n), x| (sum + x * x, n + 1));
    (sum / f64::from(count)).sqrt()
}

fn error(name: &str, answer: &Value) -> f64 {
    let path = root().join(format!("tests/fixtures/oracle/families/{name}.gguf"));
    let model = Model::load(&path, &LoadOptions::default()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(answer["tokens"].clone()).unwrap();
    let positions: Vec<usize> = serde_json::from_value(answer["positions"].clone()).unwrap();
    let theirs: Vec<Vec<f64>> = serde_json::from_value(answer["logits"].clone()).unwrap();
    let ours = Bench::new(&model, 1, tokens.len().div_ceil(16)).every_row(&tokens, 16);
    let pairs = positions.iter().zip(&theirs).flat_map(|(&position, theirs)| {
        assert_eq!(ours[position].len(), theirs.len());
        ours[position].iter().map(|&x| f64::from(x)).zip(theirs.iter().copied())
    });
    rms(pairs.clone().map(|(a, b)| a - b)) / rms(pairs.map(|(_, b)| b))
}

#[test]
fn every_family_and_type_agrees() {
    let path = root().join("tests/fixtures/oracle/families/logits.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let answers = answers.as_object().unwrap();
    assert_eq!(answers.len(), 15);
    let errors: Vec<(&String, f64)> =
        answers.iter().map(|(name, answer)| (name, error(name, answer))).collect();
    println!("{errors:#.4?}");
    for (name, error) in errors {
        assert!(error < tolerance(name), "{name}: logits differ by {error:.4} of their size");
    }
}
