//! The scheduler's promises, against a model that remembers what was written to each block.

mod simulation;

use plumb_worker::scheduler::Limits;
use proptest::prelude::*;
use simulation::{Request, Simulation, solo_answer};

const LIMITS: Limits = Limits {
    max_seqs: 4,
    max_batch_tokens: 8,
    max_prompt_tokens: 8,
    max_prompt_tokens_beside_decodes: 4,
    max_logit_rows: 6,
};

fn request() -> impl Strategy<Value = Request> {
    // Few different prompts, so that prefixes are shared.
    (0u32..3, 1usize..30, 1usize..12, 1u32..4, 0usize..40, any::<bool>(), 0usize..40).prop_map(
        |(family, prompt, max_tokens, n, arrives, all_rows, remote)| Request {
            prompt: (0..prompt as u32).map(|i| family * 100 + i / 7).collect(),
            max_tokens,
            n,
            arrives,
            all_rows: all_rows && n == 1,
            remote: (remote < prompt).then_some(remote),
            aborts: None,
        },
    )
}

proptest! {
    /// Whatever runs beside it and however often it is put back, every sequence gets exactly the
    /// tokens that it would have got alone, and every block returns.
    #[test]
    fn every_answer_is_its_solo_answer(
        requests in prop::collection::vec(request(), 1..12),
        blocks in 11usize..30,
        pulls_fail in any::<bool>(),
    ) {
        let mut simulation = Simulation::new(LIMITS, blocks);
        simulation.pulls_fail = pulls_fail;
        simulation.run(&requests);
        for (number, request) in requests.iter().enumerate() {
            for index in 0..request.n {
                prop_assert_eq!(
                    simulation.answer(number, index),
                    Some(solo_answer(request, index)),
                    "request {} answer {}", number, index
                );
            }
        }
        prop_assert_eq!(simulation.used_blocks(), 0);
    }

    /// A request that leaves at any step takes everything with it, and disturbs nobody.
    #[test]
    fn aborts_leave_nothing_behind(
        requests in prop::collection::vec((request(), prop::option::of(0usize..60)), 1..10),
        blocks in 11usize..30,
    ) {
        let requests: Vec<Request> =
            requests.into_iter().map(|(r, aborts)| Request { aborts, ..r }).collect();
        let mut simulation = Simulation::new(LIMITS, blocks);
        simulation.run(&requests);
        for (number, request) in requests.iter().enumerate() {
            if request.aborts.is_none() {
                for index in 0..request.n {
                    prop_assert_eq!(
                        simulation.answer(number, index), Some(solo_answer(request, index))
                    );
                }
            }
        }
        prop_assert_eq!(simulation.used_blocks(), 0);
    }
}

#[test]
fn decodes_go_on_while_a_long_prompt_is_computed() {
    let short = Request::new(vec![1, 2, 3], 20);
    let long = Request { arrives: 2, ..Request::new((0..60).collect(), 1) };
    let mut simulation = Simulation::new(LIMITS, 40);
    simulation.run(&[short, long]);
    let steps = simulation.steps_of(0);
    assert_eq!(steps.len(), 20);
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "a token in every step: {steps:?}");
    let joined = simulation.steps_of(1)[0];
    assert!(joined + 1 >= 2 + 60 / LIMITS.max_prompt_tokens_beside_decodes, "at {joined}");
}

#[test]
fn a_cached_prefix_is_not_computed_again() {
    let prompt: Vec<u32> = (0..25).collect();
    let first = Request::new(prompt.clone(), 1);
    let second = Request { arrives: 20, ..Request::new(prompt, 1) };
    let mut simulation = Simulation::new(LIMITS, 40);
    simulation.run(&[first, second]);
    assert_eq!(simulation.computed_of(0), 25);
    assert_eq!(simulation.computed_of(1), 1, "six blocks of four were there");
}

#[test]
fn a_pulled_prompt_computes_only_the_rest() {
    for (prompt, computed) in [(25, 1), (24, 4), (27, 3), (3, 3)] {
        let tokens: Vec<u32> = (0..prompt as u32).collect();
        let request = Request { remote: Some(prompt), ..Request::new(tokens, 1) };
        let mut simulation = Simulation::new(LIMITS, 40);
        simulation.run(&[request]);
        assert_eq!(simulation.computed_of(0), computed, "prompt of {prompt}");
    }
}

#[test]
fn first_come_first_served() {
    let requests: Vec<Request> =
        (0..8).map(|i| Request::new((i * 50..i * 50 + 9).collect(), 1)).collect();
    let mut simulation = Simulation::new(LIMITS, 8);
    simulation.run(&requests);
    let firsts: Vec<usize> = (0..8).map(|r| simulation.steps_of(r)[0]).collect();
    assert!(firsts.is_sorted(), "{firsts:?}");
}
