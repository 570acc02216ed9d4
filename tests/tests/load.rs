//! 200 streams at once: every one complete and correct, and memory flat afterwards.

use plumb_tests::http::{post, try_post};
use plumb_tests::models;
use plumb_tests::stack::{Instance, Stack};
use serde_json::{Value, json};

const STREAMS: usize = 200;
const KINDS: usize = 10;

fn request(kind: usize) -> Value {
    let ids: Vec<usize> =
        (0..20 + kind * 13).map(|i| 300 + (kind * 7919 + i * 31) % 40_000).collect();
    json!({"prompt": ids, "max_tokens": 6 + kind, "temperature": 0, "stream": true,
           "ignore_eos": true, "stream_options": {"include_usage": true}})
}

fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn all_at_once(url: &str, expected: &[String]) {
    std::thread::scope(|scope| {
        for stream in 0..STREAMS {
            scope.spawn(move || {
                let kind = stream % KINDS;
                let answer = try_post(url, &request(kind)).expect("a whole answer");
                assert_eq!(answer.text(), expected[kind], "stream {stream}");
                let last = answer.events()[answer.events().len() - 2];
                let usage: Value = serde_json::from_str(last).expect("JSON");
                assert_eq!(usage["usage"]["completion_tokens"], json!(6 + kind), "{last}");
            });
        }
    });
}

#[test]
fn two_hundred_streams() {
    let model = models::smollm();
    let single = Instance::start("both", &model, &[]);
    let url = format!("{}/v1/completions", single.url);
    let expected: Vec<String> = (0..KINDS).map(|kind| post(&url, &request(kind)).text()).collect();
    drop(single);

    let stack = Stack::start(&model, "auto");
    let url = stack.at("/v1/completions");
    all_at_once(&url, &expected);
    let pids = [stack.router.pid(), stack.prefill[0].process.pid(), stack.decode[0].process.pid()];
    let warm = pids.map(rss);
    all_at_once(&url, &expected);
    for (pid, before) in pids.into_iter().zip(warm) {
        let after = rss(pid);
        assert!(after <= before + (4 << 20), "pid {pid}: {before} bytes grew to {after}");
    }
    for instance in [&stack.prefill[0], &stack.decode[0]] {
        assert_eq!(instance.metric(r#"plumb_kv_blocks{state="used"}"#), 0.0);
        assert_eq!(instance.metric("plumb_kv_leases"), 0.0);
    }
}
