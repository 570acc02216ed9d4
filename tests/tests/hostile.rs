//! Bad input is answered in OpenAI's error shape, and harms nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use plumb_tests::http::{Answer, get, post, post_bytes};
use plumb_tests::models;
use plumb_tests::stack::{Instance, Stack};
use serde_json::json;

fn refused(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let error = &answer.json()["error"];
    let message = error["message"].as_str().unwrap_or_else(|| panic!("no message: {error}"));
    assert!(message.contains(says), "{message:?} does not say {says:?}");
    assert!(error["type"].is_string(), "{error}");
    assert_eq!(error["code"], json!(status), "{error}");
}

fn still_serves(url: &str) {
    let body = json!({"prompt": "One, two, three,", "max_tokens": 2, "temperature": 0});
    assert!(!post(&format!("{url}/v1/completions"), &body).text().is_empty());
}

#[test]
fn garbage_and_limits() {
    let stack = Stack::with(&models::smollm(), 1, 1, &["--context", "256"], &[]);
    let worker = &stack.decode[0].url;
    for url in [&stack.url, worker] {
        let completions = format!("{url}/v1/completions");
        let chat = format!("{url}/v1/chat/completions");
        for garbage in [&b"{"[..], b"", b"[]", b"null", b"\xff\xfe\x00", b"{\"prompt\":}"] {
            refused(&post_bytes(&completions, garbage).expect("an answer"), 400, "");
            refused(&post_bytes(&chat, garbage).expect("an answer"), 400, "");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        refused(&post_bytes(&completions, deep.as_bytes()).expect("an answer"), 400, "");
        refused(&post(&chat, &json!({"messages": "hello"})), 400, "messages");
        refused(&post(&chat, &json!({"model": "x"})), 400, "messages");
        refused(&post(&completions, &json!({"prompt": {"a": 1}})), 400, "prompt");
        refused(&post(&completions, &json!({"prompt": [99_999_999]})), 400, "");
        refused(&post(&completions, &json!({"prompt": "a", "max_tokens": 1e30})), 400, "");
        let unknown = json!({"model": "nope", "prompt": "a"});
        refused(&post(&completions, &unknown), 404, "nope");
        refused(&get(&format!("{url}/v1/nothing")).expect("an answer"), 404, "");
        refused(&get(&completions).expect("an answer"), 405, "");

        let ids: Vec<u32> = (0..300).map(|i| 300 + i).collect();
        let long = post(&completions, &json!({"prompt": ids, "max_tokens": 1}));
        refused(&long, 400, "maximum context length is 256 tokens");
        assert!(long.body.contains("300"), "the prompt's own length: {}", long.body);
    }
    let steer = json!({"prompt": "a", "kv_transfer_params": {"do_remote_prefill": true}});
    refused(&post(&stack.at("/v1/completions"), &steer), 400, "kv_transfer_params");

    let huge = vec![b' '; 80 << 20];
    match post_bytes(&stack.at("/v1/completions"), &huge) {
        // A server may close before the client has sent it all: then there is no answer to read.
        None => {}
        Some(answer) => refused(&answer, 413, ""),
    }
    still_serves(&stack.url);
}

#[test]
fn a_model_without_a_template_refuses_chat() {
    let worker = Instance::start("both", &models::gemma(), &["--context", "256"]);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    refused(&post(&format!("{}/v1/chat/completions", worker.url), &body), 400, "chat template");
    still_serves(&worker.url);
}

#[test]
fn slow_and_idle_connections() {
    let stack = Stack::start(&models::smollm(), "auto");
    let host = stack.url.strip_prefix("http://").expect("http").to_owned();
    let mut idle = Vec::new();
    raise_file_limit();
    while idle.len() < 10_000 {
        idle.push(TcpStream::connect(&host).unwrap_or_else(|e| panic!("{}: {e}", idle.len())));
    }
    // A body that comes too slowly to ever be whole.
    let mut slow = TcpStream::connect(&host).expect("one more");
    write!(slow, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{")
        .expect("sent");
    let started = Instant::now();
    still_serves(&stack.url);
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());

    // Whatever was done about the slow one, it was not left hanging without an end.
    slow.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut answer = String::new();
    let ended = slow.read_to_string(&mut answer);
    assert!(ended.is_ok() || answer.contains("408"), "{ended:?} {answer:?}");
    drop(idle);
    still_serves(&stack.url);
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("own limit");
}

fn peak_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// What reading a body takes is many times its bytes: large ones are read one after the other.
#[test]
fn large_bodies_take_little_memory() {
    let worker = Instance::start("both", &models::smollm(), &["--kv-blocks", "520"]);
    let url = format!("{}/v1/completions", worker.url);
    let body = format!("{{\"prompt\":[{}1]}}", "1,".repeat(1_500_000));
    worker.wait_filled();
    let before = peak_bytes(worker.process.pid());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let answer = post_bytes(&url, body.as_bytes()).expect("an answer");
                refused(&answer, 400, "maximum context length");
            });
        }
    });
    let took = peak_bytes(worker.process.pid()) - before;
    assert!(took < 160 << 20, "{} MiB for three bodies of 3 MB", took >> 20);
    still_serves(&worker.url);
}
