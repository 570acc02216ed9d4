//! What lies before a window may be anything: its blocks may be another sequence's by then.

mod common;

use common::tiny::{Tiny, VOCAB};
use common::{Bench, bits};
use plumb_engine::{LoadOptions, Model, Rows};

#[test]
fn blocks_before_the_window_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    // Five layers: the sixth would be the first without a window.
    let tiny = Tiny { layers: 5, ..Tiny::gemma3() };
    let model = Model::load(&tiny.write(dir.path()), &LoadOptions::default()).unwrap();
    let windows = &model.config().windows;
    assert!(windows.iter().all(|&window| window == Some(20)), "{windows:?}");

    let tokens: Vec<u32> = (0..150).map(|i| (i * 37 + i * i) % VOCAB as u32).collect();
    let mut bench = Bench::new(&model, 1, 32);
    for computed in [64, 70, 100, 130] {
        let mut sequence = bench.sequence(tokens.len());
        bench.run(&mut sequence, &tokens[..computed], Rows::None);
        let want = bench.run(&mut sequence, &tokens[computed..], Rows::All);

        let mut sequence = bench.sequence(tokens.len());
        bench.run(&mut sequence, &tokens[..computed], Rows::None);
        // The next token sees itself and 19 before it.
        let view = bench.pool.view();
        for id in &sequence.ids[..(computed - 19) / 16] {
            // SAFETY: the block is this sequence's, and no step runs. All ones are NaN as factors.
            unsafe { view.block(*id).as_ptr().write_bytes(0xff, view.block_bytes) };
        }
        let got = bench.run(&mut sequence, &tokens[computed..], Rows::All);
        assert!(got.iter().flatten().all(|x| x.is_finite()), "after {computed}");
        assert_eq!(bits(&got), bits(&want), "after {computed}");
    }
}
