//! Real models say what they should.

mod common;

use common::Bench;
use common::models::Real;
use plumb_text::Special;

const BOTH: Special = Special { add: true, parse: true };

#[test]
fn smollm_answers_a_question() {
    let prompt =
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let tokenizer = Real::SmolLm2.tokenizer();
    let mut bench = Bench::new(&Real::SmolLm2.load(), 1, 16);
    let answer = bench.greedy(&tokenizer.encode(prompt, BOTH), 8);
    assert_eq!(tokenizer.decode(&answer, true), "The capital of France is Paris.<|im_end|>");
}

#[test]
fn gemma_continues_a_text() {
    let tokenizer = Real::Gemma3.tokenizer();
    let mut bench = Bench::new(&Real::Gemma3.load(), 1, 16);
    let prompt =
        "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is";
    let answer = bench.greedy(&tokenizer.encode(prompt, BOTH), 2);
    assert_eq!(tokenizer.decode(&answer, true), " Rome.");
}
