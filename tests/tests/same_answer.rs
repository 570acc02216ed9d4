//! The answer through router, prefill and decode is the answer of one instance, token for token,
//! and decode computed only what it could not pull.

use std::path::Path;

use plumb_tests::http::post;
use plumb_tests::models;
use plumb_tests::stack::{Instance, Stack};
use serde_json::{Value, json};

const BLOCK: usize = 16;
const CONTEXT: usize = 640;
const NEW_TOKENS: usize = 12;

/// Every length around the first block boundaries, some around later ones, and the longest that
/// leaves room for the answer.
fn lengths() -> Vec<usize> {
    let mut lengths: Vec<usize> = (1..=2 * BLOCK + 2).collect();
    lengths.extend([127, 128, 129, 511, 512, 513, CONTEXT - NEW_TOKENS]);
    lengths
}

/// Token ids that no two lengths share, so that no answer comes from a cached prefix.
fn prompt(length: usize) -> Vec<usize> {
    (0..length).map(|i| 300 + (length * 7919 + i * 104_729) % 40_000).collect()
}

fn completion(length: usize, stream: bool) -> Value {
    json!({"prompt": prompt(length), "max_tokens": NEW_TOKENS, "temperature": 0,
           "stream": stream, "ignore_eos": true})
}

fn workers(model: &Path, transport: &str) -> (Instance, Stack) {
    let context = CONTEXT.to_string();
    let flags = ["--context", context.as_str(), "--kv-blocks", "256"];
    let single = Instance::start("both", model, &flags);
    let mut flags = flags.to_vec();
    flags.extend(["--kv-transport", transport]);
    (single, Stack::with(model, 1, 1, &flags, &[]))
}

fn check_lengths(model: &Path, transport: &str) {
    let (single, stack) = workers(model, transport);
    let decode = &stack.decode[0];
    let sources = ["computed", "cached", "pulled"]
        .map(|source| format!("plumb_prompt_tokens_total{{source=\"{source}\"}}"));
    for length in lengths() {
        let expected = post(&format!("{}/v1/completions", single.url), &completion(length, false));
        let before = sources.each_ref().map(|s| decode.metric(s));
        let stream = length % 2 == 1;
        let answer = post(&stack.at("/v1/completions"), &completion(length, stream));
        assert_eq!(answer.text(), expected.text(), "{length} tokens over {transport}");
        let after = sources.each_ref().map(|s| decode.metric(s));

        // The last token is always computed: its logits are the first answer.
        let pulled = if length % BLOCK == 0 { length - BLOCK } else { length / BLOCK * BLOCK };
        let pulled_at_least = pulled as f64;
        let grew = |i: usize| after[i] - before[i];
        assert!(grew(2) >= pulled_at_least, "{length} tokens: pulled {} of {pulled}", grew(2));
        assert_eq!(grew(0) + grew(1) + grew(2), length as f64, "{length} tokens add up");
        if pulled > 0 {
            assert!(answer.route.starts_with("pd"), "{length} tokens went {:?}", answer.route);
        }
    }
}

#[test]
fn smollm_over_shared_memory() {
    check_lengths(&models::smollm(), "shm");
}

#[test]
fn smollm_over_tcp() {
    check_lengths(&models::smollm(), "tcp");
}

#[test]
fn gemma_over_shared_memory() {
    check_lengths(&models::gemma(), "shm");
}

#[test]
fn gemma_over_tcp() {
    check_lengths(&models::gemma(), "tcp");
}

#[test]
fn chats_with_any_text() {
    let (single, stack) = workers(&models::smollm(), "auto");
    let texts = [
        "Hi",
        "What is the capital of France?",
        "Quelle est la différence entre « thé » et « café » ?",
        "日本の首都はどこですか？ 🗼",
        "👩‍👩‍👧‍👦 e\u{301} \u{200f}שלום\t\n\r\n   ",
        "<|im_start|>user\nthis is no role<|im_end|>",
        "fn main() { println!(\"{:?}\", vec![1u8; 4]); }",
    ];
    for text in texts {
        for stream in [false, true] {
            let body = json!({"messages": [{"role": "user", "content": text}], "temperature": 0,
                              "max_completion_tokens": 24, "stream": stream});
            let expected = post(&format!("{}/v1/chat/completions", single.url), &body);
            let answer = post(&stack.at("/v1/chat/completions"), &body);
            assert_eq!(answer.text(), expected.text(), "{text:?}");
        }
    }
}
