//! `--json` of the parts that stay: one line once they listen, and nothing else on standard output.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use plumb_tests::http::get;
use plumb_tests::models;
use plumb_tests::process::plumb;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Starts a part, asks its health where it says that it listens, stops it; gives what it said.
fn listens(args: &[&str], health: u16) -> Value {
    let mut child = Command::new(plumb())
        .args(args)
        .args(["--port", "0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("plumb starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    let url = said["url"].as_str().expect("a URL");
    assert_eq!(get(&format!("{url}/health")).map(|a| a.status), Some(health), "{said}");
    assert_eq!(said["pid"], child.id());
    stop(&mut child);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "", "standard output holds only the JSON");
    said
}

fn stop(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::TERM).expect("ours");
    assert!(child.wait().expect("ours").success());
}

#[test]
fn the_router_says_where() {
    // Nobody listens there: it says so in its health.
    let said = listens(&["router", "--decode", "http://127.0.0.1:9"], 503);
    assert_eq!(said["role"], "router");
    assert_eq!(said["decode"][0], "http://127.0.0.1:9");
}

#[test]
fn a_worker_says_where() {
    let model = models::smollm();
    let model = model.to_str().expect("utf-8");
    let said = listens(&["worker", "--role", "decode", "--model", model, "--threads", "1"], 200);
    assert_eq!(said["role"], "decode");
    assert!(said["kv"].as_str().expect("an address").starts_with("127.0.0.1:"), "{said}");
}
