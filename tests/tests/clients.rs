//! The clients and routers that people have: OpenAI's Python package, and vLLM's own router.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use plumb_tests::http::{get, post};
use plumb_tests::models;
use plumb_tests::process::{Process, wait_for};
use plumb_tests::stack::{Instance, Stack, free_port};
use serde_json::json;

fn venv(program: &str) -> PathBuf {
    let path = models::root().join(".venv/bin").join(program);
    assert!(path.exists(), "{} is not there: run `make clients`", path.display());
    path
}

fn openai_client(url: &str) {
    let mut command = Command::new(venv("python"));
    command.arg(models::root().join("tests/clients/openai_client.py")).arg(format!("{url}/v1"));
    let mut client = Process::start("openai client", command);
    let status = client.wait(Duration::from_secs(120));
    assert!(status.success(), "against {url}:\n{}", client.log());
    assert!(client.log().contains("all checks passed"), "{}", client.log());
}

#[test]
fn openai_drives_the_router() {
    let stack = Stack::start(&models::smollm(), "auto");
    openai_client(&stack.url);
    // Which way they went, and why, is in the log and counted.
    assert!(stack.router.log().contains("reason=disaggregated"), "{}", stack.router.log());
    let routed = r#"plumb_router_routes_total{route="pd",reason="disaggregated"}"#;
    assert!(plumb_tests::stack::metric(&stack.url, routed) > 10.0);
}

#[test]
fn openai_drives_one_worker() {
    let worker = Instance::start("both", &models::smollm(), &[]);
    openai_client(&worker.url);
}

#[test]
fn vllms_router_drives_our_workers() {
    let model = models::smollm();
    let prefill = Instance::start("prefill", &model, &[]);
    let decode = Instance::start("decode", &model, &["--kv-peer", &prefill.kv]);
    let single = Instance::start("both", &model, &[]);
    let port = free_port().to_string();
    let metrics = free_port().to_string();
    let mut command = Command::new(venv("vllm-router"));
    command
        .args(["--host", "127.0.0.1", "--port", &port])
        .args(["--vllm-pd-disaggregation", "--kv-connector", "nixl"])
        .args(["--prefill", &prefill.url, "--decode", &decode.url])
        .args(["--prometheus-host", "127.0.0.1", "--prometheus-port", &metrics]);
    let router = Process::start("vllm-router", command);
    let url = format!("http://127.0.0.1:{port}");
    wait_for(&format!("vllm-router ready:\n{}", router.log()), Duration::from_secs(60), || {
        get(&format!("{url}/health")).filter(|a| a.status == 200)
    });

    let models = get(&format!("{}/v1/models", single.url)).expect("a list").json();
    let name = &models["data"][0]["id"];
    // What decode has seen it has cached, and need not pull again: two questions.
    let rivers = "List three rivers of Europe and say where each of them ends, in full sentences.";
    let peaks = "Name two mountains of Asia, and for each of them the year of its first ascent.";
    for (question, stream) in [(rivers, false), (peaks, true)] {
        let body = json!({
            "model": name, "max_tokens": 24, "temperature": 0, "stream": stream,
            "messages": [{"role": "user", "content": question}],
        });
        let expected = post(&format!("{}/v1/chat/completions", single.url), &body);
        let pulled = r#"plumb_prompt_tokens_total{source="pulled"}"#;
        let before = decode.metric(pulled);
        let answer = post(&format!("{url}/v1/chat/completions"), &body);
        assert_eq!(answer.text(), expected.text(), "{}", router.log());
        let after = decode.metric(pulled);
        assert!(after >= before + 16.0, "{question}: {before}, then {after} tokens pulled");
    }
    wait_for("leases given back", Duration::from_secs(5), || {
        (prefill.metric("plumb_kv_leases") == 0.0).then_some(())
    });
}
