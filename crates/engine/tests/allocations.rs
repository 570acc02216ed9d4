//! A step allocates nothing.

mod common;

use common::Bench;
use common::models::Real;
use plumb_engine::{Rows, Slice};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_step_allocates_nothing() {
    for real in Real::BOTH {
        let model = real.load();
        let mut bench = Bench::new(&model, 2, 64);
        let prompt: Vec<u32> = (100..400).collect();
        let (long, short) = (bench.sequence(300), bench.sequence(40));
        let mut counts = Vec::new();
        for round in 0..3 {
            let whole = Slice { tokens: &prompt, start: 0, blocks: &long.ids, logits: Rows::Last };
            let piece =
                Slice { tokens: &prompt[..40], start: 0, blocks: &short.ids, logits: Rows::All };
            let one =
                Slice { tokens: &prompt[299..], start: 299, blocks: &long.ids, logits: Rows::Last };
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for batch in [&[whole, piece][..], &[one, piece], &[one]] {
                let logits = bench.engine.step(&bench.pool, batch).unwrap();
                assert!(!logits.is_empty(), "round {round}");
            }
            counts.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
        }
        // The first round too: nothing is put off to the first request.
        assert_eq!(counts, [0, 0, 0], "{real:?}");
    }
}
