//! Long texts: time grows with the length, not with its square.

mod common;

use common::{GEMMA3, SMOLLM2, tokenizer};
use plumb_text::{Special, Tokenizer};
use std::sync::Arc;
use std::time::Duration;

const PLAIN: Special = Special { add: false, parse: true };

/// This thread's CPU time, the best of three, so that a busy machine does not decide.
fn time(tokenizer: &Tokenizer, text: &str) -> Duration {
    let once = |_| {
        let start = cpu();
        tokenizer.encode(text, PLAIN);
        cpu() - start
    };
    (0..3).map(once).min().unwrap()
}

fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Sixteen times the text may take a hundred times as long, since it leaves the cache; a square
/// would take 256 times.
fn is_not_quadratic(tokenizer: &Arc<Tokenizer>, piece: &str) {
    let text = |bytes: usize| piece.repeat(bytes / piece.len());
    let (short, long) = (text(12_500), text(200_000));
    let (fast, slow) = (time(tokenizer, &short), time(tokenizer, &long));
    println!("{piece:?}: {fast:?} for {}, {slow:?} for {} bytes", short.len(), long.len());
    assert!(slow < fast * 100 + Duration::from_millis(5), "{piece:?}: {fast:?}, then {slow:?}");
    assert_eq!(tokenizer.decode(&tokenizer.encode(&long, PLAIN), true), long);
}

#[test]
fn words_of_any_length_take_linear_time() {
    for model in [SMOLLM2, GEMMA3] {
        let tokenizer = tokenizer(model);
        for piece in ["a", " ", "=", "漢", "The quick brown fox. ", "<|im_end"] {
            is_not_quadratic(&tokenizer, piece);
        }
    }
}
