//! Many at once, and leaving at any moment: nobody's answer changes, nothing is left behind.

mod common;

use common::client::read_events;
use common::{CONTEXT, Instance, options, prefill, smollm, start, wait_for};
use plumb_worker::WorkerOptions;
use serde_json::{Value, json};

fn body(request: usize, max_tokens: usize, stream: bool) -> Value {
    let prompt: Vec<usize> =
        (0..20 + request * 7).map(|i| 300 + (request * 7919 + i * 31) % 40_000).collect();
    json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": stream,
           "ignore_eos": true})
}

fn holds_nothing(instance: &Instance) -> bool {
    [r#"plumb_kv_blocks{state="used"}"#, "plumb_requests_in_flight", "plumb_kv_leases"]
        .iter()
        .chain(&[r#"plumb_requests{state="running"}"#, r#"plumb_requests{state="waiting"}"#])
        .all(|sample| instance.metric(sample) == 0.0)
}

/// Answers of all requests at once.
fn together(instance: &Instance, requests: usize, max_tokens: usize) -> Vec<String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..requests)
            .map(|r| {
                scope.spawn(move || instance.complete(&body(r, max_tokens, r % 2 == 0)).text(0))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn concurrent_answers_are_their_solo_answers() {
    // Fresh, so that prefixes are cached in one of the two runs only.
    let instance = start(options(smollm()));
    let concurrent = together(&instance, 12, 10);
    for (request, answer) in concurrent.into_iter().enumerate() {
        assert_eq!(answer, prefill().complete(&body(request, 10, false)).text(0), "{request}");
    }
    assert!(holds_nothing(&instance));
}

/// The pool holds one context: sequences are put back and computed again, and nobody notices.
#[test]
fn a_pool_that_is_too_small_changes_no_answer() {
    let context = 144;
    let small = WorkerOptions { kv_blocks: Some(9), context: Some(context), ..options(smollm()) };
    let instance = start(small);
    let concurrent = together(&instance, 6, 40);
    assert!(instance.metric("vllm:num_preemptions_total") > 0.0, "the pool was not too small");
    for (request, answer) in concurrent.into_iter().enumerate() {
        assert_eq!(answer, prefill().complete(&body(request, 40, false)).text(0), "{request}");
    }
    assert!(holds_nothing(&instance));
}

#[test]
fn leaving_at_any_moment_leaves_nothing() {
    let instance = start(options(smollm()));
    let running = r#"plumb_requests{state="running"}"#;
    let long: Vec<usize> = (0..CONTEXT - 60).map(|i| 300 + i * 31 % 40_000).collect();
    let endless = json!({"prompt": long, "max_tokens": 50, "temperature": 0, "stream": true,
                         "ignore_eos": true, "n": 2});
    for _ in 0..3 {
        // Before anything is computed, or in the middle of the prompt.
        drop(instance.open("/v1/completions", &endless));
        let in_prompt = instance.open("/v1/completions", &endless);
        wait_for("the prompt to begin", || (instance.metric(running) > 0.0).then_some(()));
        drop(in_prompt);
        // After the first token, and in the middle of the answer.
        for events in [1, 5] {
            let mut stream = instance.open("/v1/completions", &endless);
            read_events(&mut stream, events);
        }
    }
    wait_for("everything to return", || holds_nothing(&instance).then_some(()));
}

/// A client that leaves while its prompt is computed for another instance strands no lease.
#[test]
fn leaving_before_the_params_arrive_ends_the_lease() {
    let instance = start(options(smollm()));
    let mut leg = body(9, 1, false);
    leg["kv_transfer_params"] = json!({"do_remote_decode": true, "do_remote_prefill": false});
    for _ in 0..5 {
        drop(instance.open("/v1/completions", &leg));
    }
    wait_for("everything to return", || holds_nothing(&instance).then_some(()));
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let instance = start(WorkerOptions { max_seqs: 1, max_waiting: 1, ..options(smollm()) });
    let first = instance.open("/v1/completions", &body(0, 400, true));
    let second = instance.open("/v1/completions", &body(1, 400, true));
    wait_for("both to be in", || {
        (instance.metric("plumb_requests_in_flight") == 2.0).then_some(())
    });
    let third = instance.complete(&body(2, 1, false));
    assert_eq!(third.status, 503, "{}", third.body);
    assert_eq!(third.retry_after.as_deref(), Some("1"));
    drop((first, second));
    wait_for("everything to return", || holds_nothing(&instance).then_some(()));
    assert_eq!(instance.complete(&body(2, 1, false)).status, 200);
}
