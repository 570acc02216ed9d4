//! Work leaves no memory behind. A binary of its own: other tests would be measured too.

mod common;

use common::{Instance, options, smollm, start};
use serde_json::json;

fn work(instance: &Instance, requests: std::ops::Range<usize>) {
    for request in requests {
        let prompt: Vec<usize> =
            (0..24).map(|i| 300 + (request * 7919 + i * 31) % 40_000).collect();
        let body = json!({"prompt": prompt, "max_tokens": 4, "n": 2, "logprobs": 3,
                          "stream": request % 2 == 0});
        assert_eq!(instance.complete(&body).status, 200);
    }
}

#[test]
fn is_flat_once_warm() {
    let instance = start(options(smollm()));
    // Every block of the pool has been used, and every buffer has found its size.
    work(&instance, 0..60);
    let warm = instance.metric("plumb_rss_bytes");
    work(&instance, 60..160);
    let grown = instance.metric("plumb_rss_bytes") - warm;
    // A token's logits are 192 KiB: keeping one row a request would be 19 MiB.
    assert!(grown < 4e6, "{grown} bytes grew with 100 requests");
}
