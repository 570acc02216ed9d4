//! A sequence's bits depend on nothing but the sequence: not on how it is cut into slices, on what
//! else is in the batch, on the number of threads, or on whose blocks its prefix is in.

mod common;

use common::models::Real;
use common::{Bench, Sequence, bits};
use plumb_engine::kernels::matmul::Isa;
use plumb_engine::{EngineOptions, KvType, Model, Rows, Slice};
use std::sync::Arc;

/// Token ids that need no tokenizer; any ids will do.
fn tokens(model: &Model, seed: usize, len: usize) -> Vec<u32> {
    let vocab = model.config().vocab;
    (0..len).map(|i| ((seed * 7919 + i * 104_729 + i * i * 31) % vocab) as u32).collect()
}

/// The last row's logits after a prompt that was cut at `cuts`.
fn last_row(bench: &mut Bench, prompt: &[u32], cuts: &[usize]) -> Vec<Vec<f32>> {
    let mut sequence = bench.sequence(prompt.len());
    let (mut start, mut row) = (0, Vec::new());
    for end in cuts.iter().copied().chain([prompt.len()]) {
        row = bench.run(&mut sequence, &prompt[start..end], Rows::Last);
        start = end;
    }
    row
}

#[test]
fn cuts_and_threads_change_no_bit() {
    for real in Real::BOTH {
        let model = real.load();
        // Beyond a chunk of attention, and at odd places of blocks and panels of rows.
        let prompt = tokens(&model, 1, 150);
        let mut alone = Bench::new(&model, 1, 40);
        let want = bits(&last_row(&mut alone, &prompt, &[]));
        for cuts in [vec![1], vec![149], vec![16, 32, 48], vec![63, 64, 65], vec![7, 20, 81, 130]] {
            assert_eq!(
                bits(&last_row(&mut alone, &prompt, &cuts)),
                want,
                "{real:?} cut at {cuts:?}"
            );
        }
        let one_by_one: Vec<usize> = (1..150).collect();
        assert_eq!(bits(&last_row(&mut alone, &prompt, &one_by_one)), want, "{real:?} one by one");
        for threads in [2, 3] {
            let mut team = Bench::new(&model, threads, 40);
            assert_eq!(
                bits(&last_row(&mut team, &prompt, &[70])),
                want,
                "{real:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn all_kernels_give_the_same_bits() {
    for real in Real::BOTH {
        let model = real.load();
        let prompt = tokens(&model, 2, 24);
        let mut rows = Isa::all().into_iter().map(|isa| {
            let options =
                EngineOptions { kernels: Some(isa), max_context: 64, ..EngineOptions::default() };
            let mut bench = Bench::with(&model, options, 4);
            assert_eq!(bench.engine.explain().kernels, isa.name());
            // Many rows, then one.
            (isa, bits(&last_row(&mut bench, &prompt, &[23])))
        });
        let (_, portable) = rows.next().unwrap();
        for (isa, row) in rows {
            assert_eq!(row, portable, "{real:?}, {}", isa.name());
        }
    }
}

#[test]
fn bytes_in_the_cache_keep_every_bit_too() {
    for real in Real::BOTH {
        let model = real.load();
        let prompt = tokens(&model, 4, 70);
        let bench = |threads, kernels| {
            let options =
                EngineOptions { threads, kernels, kv: KvType::Int8, ..Default::default() };
            Bench::with(&model, options, 20)
        };
        let mut alone = bench(1, None);
        let want = bits(&last_row(&mut alone, &prompt, &[]));
        let words = bits(&last_row(&mut Bench::new(&model, 1, 20), &prompt, &[]));
        assert_ne!(want, words, "{real:?}: it is the other cache");
        for cuts in [vec![7, 20, 65], (1..70).collect()] {
            assert_eq!(bits(&last_row(&mut alone, &prompt, &cuts)), want, "{real:?} at {cuts:?}");
        }
        assert_eq!(bits(&last_row(&mut bench(3, None), &prompt, &[40])), want, "{real:?}");
        let short = bits(&last_row(&mut alone, &prompt[..24], &[]));
        for isa in Isa::all() {
            let row = bits(&last_row(&mut bench(1, Some(isa)), &prompt[..24], &[20]));
            assert_eq!(row, short, "{real:?}, {}", isa.name());
        }
        // A prefix that another computed, and company.
        let mut first = alone.sequence(64);
        alone.run(&mut first, &prompt[..64], Rows::None);
        let mut second = alone.sequence(70);
        second.ids[..4].copy_from_slice(&first.ids[..4]);
        let other = tokens(&model, 9, 40);
        let room = alone.sequence(other.len());
        let batch = [
            slice_of(&room, &other, 0, Rows::None),
            slice_of(&second, &prompt[64..], 64, Rows::Last),
        ];
        let mut logits = alone.engine.step(&alone.pool, &batch).unwrap();
        let row = logits.rows().next().unwrap().to_vec();
        assert_eq!(bits(&[row]), want, "{real:?}, a shared prefix");
    }
}

#[test]
fn every_row_is_the_same_however_it_is_reached() {
    let model = Real::SmolLm2.load();
    let prompt = tokens(&model, 5, 70);
    let mut bench = Bench::new(&model, 1, 40);
    let whole = bits(&bench.every_row(&prompt, 70));
    assert_eq!(bits(&bench.every_row(&prompt, 1)), whole);
    assert_eq!(bits(&bench.every_row(&prompt, 13)), whole);
}

#[test]
fn company_changes_no_bit() {
    for real in Real::BOTH {
        let model = real.load();
        let lengths = [1, 5, 16, 17, 64, 90];
        let prompts: Vec<_> = lengths.iter().map(|&len| tokens(&model, len, len)).collect();
        let mut bench = Bench::new(&model, 2, 64);
        let alone: Vec<_> =
            prompts.iter().map(|prompt| last_row(&mut bench, prompt, &[])).collect();

        let sequences: Vec<_> = prompts.iter().map(|prompt| bench.sequence(prompt.len())).collect();
        // All but the last token of each, then a batch in which all of them decode with a new
        // prompt beside them.
        for (prompt, sequence) in
            prompts.iter().zip(&sequences).filter(|(prompt, _)| prompt.len() > 1)
        {
            let slice = slice_of(sequence, &prompt[..prompt.len() - 1], 0, Rows::None);
            assert!(bench.engine.step(&bench.pool, &[slice]).unwrap().is_empty());
        }
        let newcomer = tokens(&model, 99, 33);
        let room = bench.sequence(newcomer.len());
        let mut batch = vec![slice_of(&room, &newcomer, 0, Rows::None)];
        batch.extend(prompts.iter().zip(&sequences).map(|(prompt, sequence)| {
            slice_of(sequence, &prompt[prompt.len() - 1..], prompt.len() - 1, Rows::Last)
        }));
        let mut logits = bench.engine.step(&bench.pool, &batch).unwrap();
        assert_eq!(logits.len(), prompts.len());
        for ((row, alone), len) in logits.rows().zip(&alone).zip(lengths) {
            assert_eq!(bits(&[row.to_vec()]), bits(alone), "{real:?}, prompt of {len}");
        }
    }
}

fn slice_of<'a>(
    sequence: &'a Sequence,
    tokens: &'a [u32],
    start: usize,
    logits: Rows,
) -> Slice<'a> {
    Slice { tokens, start, blocks: &sequence.ids, logits }
}

#[test]
fn a_shared_prefix_changes_no_bit() {
    let model: Arc<Model> = Real::Gemma3.load();
    let mut bench = Bench::new(&model, 1, 64);
    let prompt = tokens(&model, 3, 100);
    let mut first = bench.sequence(100);
    let want = bench.run(&mut first, &prompt, Rows::Last);
    // A second sequence reads the first one's full blocks and computes only the rest.
    let mut second = bench.sequence(100);
    second.ids[..6].copy_from_slice(&first.ids[..6]);
    second.len = 96;
    let got = bench.run(&mut second, &prompt[96..], Rows::Last);
    assert_eq!(bits(&got), bits(&want));
}
