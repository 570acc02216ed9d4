//! A child that writes to what it shares with its parent: resident memory stands still, the machine's does
//! not. `plumb watch` and `plumb hunt` both say so, and the hunt who writes. Needs root.

use std::process::{Child, Command, Output, Stdio};

use plumb_tests::hunt::{children, weight};
use plumb_tests::lab;
use plumb_tests::process::{plumb, wait_for};
use serde_json::Value;

const RATE: u64 = 4 << 20;

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(plumb());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("plumb starts")
}

fn output(child: Child) -> Output {
    let output = child.wait_with_output().expect("ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn copies_of_what_a_fork_shares_are_told_and_who_makes_them() {
    let mut target = Command::new(lab::build().join("fork_copies"))
        .env("LAB_RATE", RATE.to_string())
        .env("LAB_SECONDS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let pid = target.id();
    wait_for("a child that shares", std::time::Duration::from_secs(20), || {
        children(pid).into_iter().find(|child| weight(*child) > 200 << 20)
    });
    let pid = pid.to_string();
    let hunt = start(&["hunt", &pid, "--for", "28s", "--json"]);
    let watch = output(start(&["watch", &pid, "--for", "28s", "--json"]));
    let hunt = output(hunt);
    drop(target.stdin.take());
    target.wait().expect("ours");

    let report: Value = serde_json::from_slice(&hunt.stdout).expect("a report");
    let lines = String::from_utf8_lossy(&watch.stdout);
    let watched: Value =
        lines.lines().last().and_then(|l| serde_json::from_str(l).ok()).expect("a line");
    for verdict in [&report["verdict"], &watched["verdict"]] {
        assert_eq!(verdict["copies"], true, "{verdict:#}");
        assert_eq!((&verdict["leak"], &verdict["kind"]), (&false.into(), &"growing".into()));
        assert!(verdict["why"].as_str().is_some_and(|why| why.contains("fork")), "{verdict:#}");
        // Of each page that is copied, half was the child's before.
        let rate = verdict["bytes_per_s"].as_f64().expect("a rate");
        assert!((rate / (RATE / 2) as f64 - 1.0).abs() < 0.1, "{verdict:#}");
    }
    let frames = report["culprits"][0]["frames"].as_array().expect("a culprit");
    assert!(frames.iter().any(|f| f["function"] == "write_to_shared"), "{report:#}");
    assert_eq!(report["culprits"][0]["share"], 1.0, "{report:#}");
}
