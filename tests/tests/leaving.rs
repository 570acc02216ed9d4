//! A client that leaves, at any moment, leaves nothing behind on either side.

use std::time::Duration;

use plumb_tests::http::{Open, post};
use plumb_tests::models;
use plumb_tests::process::wait_for;
use plumb_tests::stack::{Instance, Stack};
use serde_json::{Value, json};

/// The bar: everything is given back within a second.
const SOON: Duration = Duration::from_secs(1);

/// What an instance holds for requests; all of it must return to what it was.
#[derive(Debug, PartialEq)]
struct Held {
    used_blocks: f64,
    leases: f64,
    running: f64,
    waiting: f64,
}

fn held(instance: &Instance) -> Held {
    Held {
        used_blocks: instance.metric(r#"plumb_kv_blocks{state="used"}"#),
        leases: instance.metric("plumb_kv_leases"),
        running: instance.metric(r#"plumb_requests{state="running"}"#),
        waiting: instance.metric(r#"plumb_requests{state="waiting"}"#),
    }
}

const NOTHING: Held = Held { used_blocks: 0.0, leases: 0.0, running: 0.0, waiting: 0.0 };

/// A prompt whose prefill takes long enough to leave in the middle of it.
fn long_prompt(seed: usize) -> Value {
    let ids: Vec<usize> = (0..1500).map(|i| 300 + (seed * 7919 + i * 31) % 40_000).collect();
    json!({"prompt": ids, "max_tokens": 400, "temperature": 0, "stream": true,
           "ignore_eos": true})
}

fn nothing_remains(stack: &Stack, files: [usize; 3], moment: &str) {
    for instance in stack.prefill.iter().chain(&stack.decode) {
        wait_for(&format!("{moment}: {} holds {:?}", instance.url, held(instance)), SOON, || {
            (held(instance) == NOTHING).then_some(())
        });
    }
    wait_for(
        &format!("{moment}: descriptors {:?}, were {files:?}", open_files(stack)),
        SOON,
        || {
            // A kept-alive connection more to a peer is no leak; growth with every client is.
            open_files(stack).iter().zip(&files).all(|(now, then)| *now <= then + 2).then_some(())
        },
    );
}

fn open_files(stack: &Stack) -> [usize; 3] {
    [
        stack.router.open_files(),
        stack.prefill[0].process.open_files(),
        stack.decode[0].process.open_files(),
    ]
}

#[test]
fn at_any_moment() {
    let stack = Stack::start(&models::smollm(), "auto");
    // Connections and pools are warm before anything is counted.
    let warm = json!({"prompt": "One, two, three, four, five, six, seven, eight, nine, ten, eleven",
                      "max_tokens": 2});
    assert_eq!(post(&stack.at("/v1/completions"), &warm).status, 200);
    let files = open_files(&stack);
    let running = r#"plumb_requests{state="running"}"#;

    for round in 0..4 {
        // In prefill: as soon as the prefill instance computes.
        let client = Open::post(&stack.url, "/v1/completions", &long_prompt(round * 4));
        wait_for("prefill began", Duration::from_secs(10), || {
            (stack.prefill[0].metric(running) > 0.0).then_some(())
        });
        drop(client);
        nothing_remains(&stack, files, "left in prefill");

        // Around the hand-over: as soon as prefill holds a lease or decode has the request.
        let client = Open::post(&stack.url, "/v1/completions", &long_prompt(round * 4 + 1));
        wait_for("hand-over", Duration::from_secs(30), || {
            let leased = stack.prefill[0].metric("plumb_kv_leases") > 0.0;
            (leased || stack.decode[0].metric(running) > 0.0).then_some(())
        });
        drop(client);
        nothing_remains(&stack, files, "left between the legs");

        // At once, before anybody can have begun.
        drop(Open::post(&stack.url, "/v1/completions", &long_prompt(round * 4 + 2)));
        nothing_remains(&stack, files, "left at once");

        // In the middle of the stream.
        let mut client = Open::post(&stack.url, "/v1/completions", &long_prompt(round * 4 + 3));
        for _ in 0..3 {
            assert!(client.read_until("data: "), "the stream began");
        }
        drop(client);
        nothing_remains(&stack, files, "left in the middle");
    }
    assert_eq!(post(&stack.at("/v1/completions"), &warm).status, 200);
}

#[test]
fn a_decode_that_never_pulls_loses_its_lease() {
    let prefill = Instance::start("prefill", &models::smollm(), &["--kv-lease", "1"]);
    let leg = json!({
        "prompt": "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve",
        "max_tokens": 1, "stream": false,
        "kv_transfer_params": {"do_remote_decode": true, "do_remote_prefill": false,
            "remote_engine_id": null, "remote_block_ids": null, "remote_host": null,
            "remote_port": null},
    });
    let answer = post(&format!("{}/v1/completions", prefill.url), &leg);
    assert_eq!(answer.json()["kv_transfer_params"]["do_remote_prefill"], json!(true));
    assert_eq!(prefill.metric("plumb_kv_leases"), 1.0);
    wait_for("the lease ends", Duration::from_secs(5), || {
        (prefill.metric("plumb_kv_leases_expired_total") == 1.0).then_some(())
    });
    assert_eq!(held(&prefill), NOTHING);
}
