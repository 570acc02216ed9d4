//! Dequantisation agrees with the `gguf` package. Fixtures: `make oracle`.

use plumb_gguf::{BlockType, dequant};
use serde_json::Value;
use std::collections::BTreeSet;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_type_agrees_with_the_python_package() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/oracle/blocks.json")).unwrap();
    let mut seen = BTreeSet::new();
    for case in cases.as_array().unwrap() {
        let name = case["type"].as_str().unwrap();
        let ty = BlockType::ALL.into_iter().find(|ty| ty.to_string() == name).unwrap();
        let theirs: Vec<f64> = serde_json::from_value(case["values"].clone()).unwrap();
        let mut ours = vec![0.0; theirs.len()];
        dequant::row(ty, &bytes(case["bytes"].as_str().unwrap()), &mut ours);
        for (i, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
            // Sums of two products may be rounded once more or less.
            let difference = (f64::from(ours) - theirs).abs();
            assert!(difference <= theirs.abs() * 1e-5 + 1e-30, "{name}[{i}]: {ours} {theirs}");
        }
        seen.insert(ty);
    }
    assert_eq!(seen.len(), BlockType::ALL.len());
}

#[test]
fn types_are_known_by_their_numbers() {
    for ty in BlockType::ALL {
        assert_eq!(BlockType::from_id(ty.id()), Some(ty));
        assert_eq!(ty.row_bytes(ty.block_len() * 3), Some(ty.block_bytes() * 3));
    }
    assert_eq!(BlockType::from_id(10), None);
    assert_eq!(BlockType::Q4_K.row_bytes(255), None, "rows are whole blocks");
    assert_eq!(BlockType::F32.row_bytes(usize::MAX), None, "no overflow");
}
