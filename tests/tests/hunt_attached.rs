//! `plumb hunt` on what was there before it came. Needs root.

use std::process::{Command, Stdio};
use std::time::Duration;

use plumb_tests::hunt::weight;
use plumb_tests::lab;
use plumb_tests::process::{plumb, wait_for};
use serde_json::Value;

/// The mapping is older than the hunt, realloc makes it larger and moves it, and thousands of small chunks
/// come and go meanwhile: whose it is is known to the byte all the same.
#[test]
fn a_buffer_that_realloc_grows_is_charged_to_who_grows_it() {
    const RATE: u64 = 4 << 20;
    let mut target = Command::new(lab::build().join("malloc_regrown"))
        .env("LAB_RATE", RATE.to_string())
        .env("LAB_SECONDS", "60")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let pid = target.id();
    wait_for("it grows", Duration::from_secs(20), || (weight(pid) > 8 << 20).then_some(()));
    let pid = pid.to_string();
    let hunt = Command::new(plumb()).args(["hunt", &pid, "--for", "12s", "--json"]).output();
    drop(target.stdin.take());
    target.wait().expect("ours");
    let hunt = hunt.expect("it runs");
    let report: Value = serde_json::from_slice(&hunt.stdout).expect("a report");
    let verdict = &report["verdict"];
    assert!(verdict["layer"].as_str().is_some_and(|l| l.starts_with("heap")), "{verdict:#}");
    let first = &report["culprits"][0];
    let frames = first["frames"].as_array().expect("a culprit");
    assert!(frames.iter().any(|f| f["function"] == "grow_buffer"), "{report:#}");
    let (held, seconds) = (first["outstanding_bytes"].as_u64(), report["seconds"].as_f64());
    let expected = seconds.expect("a time") * RATE as f64;
    let off = held.expect("bytes") as f64 / expected - 1.0;
    assert!(off.abs() < 0.2, "{:.0} % off: {first:#}", off * 100.0);
}
