//! A profile counts exactly what was asked for.

mod common;

use common::Bench;
use common::tiny::Tiny;
use plumb_engine::limits::Limits;
use plumb_engine::{Done, EngineOptions, LoadOptions, Model, Rows};
use std::time::Duration;

const LIMITS: Limits = Limits { int8: 1.0, int16: 2.0, float: 4.0, memory: 4.0 };

#[test]
fn work_is_counted_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    // Layers 0 to 4 see 20 tokens back, layer 5 all.
    let tiny = Tiny { layers: 6, ..Tiny::gemma3() };
    let model = Model::load(&tiny.write(dir.path()), &LoadOptions::default()).unwrap();
    let config = model.config();
    let (heads, dim) = (config.heads, config.head_dim);
    let (kv_heads, kv_width) = (config.kv_heads, config.kv_width());
    let options = EngineOptions { profile: true, max_context: 64, ..EngineOptions::default() };
    let mut bench = Bench::with(&model, options, 8);
    let tokens: Vec<u32> = (1..31).collect();
    let mut sequence = bench.sequence(31);
    bench.run(&mut sequence, &tokens, Rows::None);
    bench.run(&mut sequence, &[7], Rows::Last);

    let report = bench.engine.explain();
    let done = |name: &str| report.ops.iter().find(|op| op.name == name).unwrap().done;
    let products = done("0 q k v");
    let macs = report.ops.iter().find(|op| op.name == "0 q k v").unwrap().macs_per_row;
    assert_eq!(products.int8_macs + products.float_macs, 31 * macs);
    let head = report.ops.iter().find(|op| op.name == "head").unwrap();
    assert_eq!(head.done.int8_macs + head.done.float_macs, head.macs_per_row, "one row of logits");
    assert_eq!(head.done.bytes, head.weight_bytes, "read in one of two steps");

    let pairs = |window: usize| (1..=31).map(|seen: usize| seen.min(window)).sum::<usize>();
    let attention = |window: usize, positions: usize| {
        let macs = (2 * pairs(window) * heads * dim) as u64;
        // Two bytes a number and four a factor, of keys and of values.
        (macs, (2 * positions * (2 * kv_width + 4 * kv_heads)) as u64)
    };
    let got = |name| (done(name).int16_macs, done(name).bytes);
    assert_eq!(got("5 attend"), attention(31, 30 + 31));
    assert_eq!(got("0 attend"), attention(20, 30 + 20));
    assert!(done("0 attend").time > Duration::ZERO);
    let table = report.profile(&LIMITS);
    assert!(table.contains("of limit") && table.contains("attend"), "{table}");

    bench.engine.forget_profile();
    assert!(bench.engine.explain().ops.iter().all(|op| op.done == Done::default()));
}

#[test]
fn the_slower_of_arithmetic_and_memory_is_the_limit() {
    let done = Done {
        int8_macs: 2_000_000_000,
        int16_macs: 2_000_000_000,
        float_macs: 4_000_000_000,
        ..Done::default()
    };
    assert_eq!(done.limit(&LIMITS, 1), Duration::from_secs(4));
    assert_eq!(done.limit(&LIMITS, 2), Duration::from_secs(2));
    let streaming = Done { bytes: 40_000_000_000, ..done };
    assert_eq!(streaming.limit(&LIMITS, 1), Duration::from_secs(10));
    let unknown = Limits { int8: f64::NAN, int16: f64::NAN, float: f64::NAN, memory: f64::NAN };
    assert_eq!(done.limit(&unknown, 1), Duration::ZERO);
}
