//! A target that ends by itself, and its workers before it: what is told is what was held at the end.
//! Needs root.

use std::process::{Command, Stdio};

use plumb_tests::hunt::Hunted;
use plumb_tests::lab;
use plumb_tests::process::plumb;

/// A program that ends after so many seconds, at 8 MiB a second.
fn hunted(program: &str, seconds: u64) -> Hunted {
    let program = lab::build().join(program);
    let mut hunt = Command::new(plumb())
        .args(["hunt", "--json", "--"])
        .arg(program)
        .env("LAB_RATE", (8 << 20).to_string())
        .env("LAB_SECONDS", seconds.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("plumb starts");
    // Its end would be the program's.
    let input = hunt.stdin.take();
    let output = hunt.wait_with_output().expect("ours");
    drop(input);
    let log = String::from_utf8_lossy(&output.stderr);
    let truth = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    Hunted {
        report: serde_json::from_slice(&output.stdout).expect("a report"),
        truth: truth.unwrap_or_else(|| panic!("no truth: {log}")),
    }
}

#[test]
fn what_is_told_is_what_was_held_at_the_end() {
    let hunted = hunted("fork_passing", 14);
    let report = &hunted.report;
    assert!(hunted.first_stack().contains(&"leak_mapping".to_owned()), "{report:#}");
    // What the workers took they gave back.
    assert!(report["culprits"][0]["share"].as_f64() > Some(0.98), "{report:#}");
    let held = hunted.held_by("leak_mapping") as f64;
    let truth = hunted.truth["layers"]["anonymous"].as_f64().expect("a truth");
    assert!((held / truth - 1.0).abs() < 0.02, "{held} of {truth}: {report:#}");
}

#[test]
fn a_heap_is_told_as_it_was_at_the_end() {
    let hunted = hunted("malloc_in_use", 20);
    let report = &hunted.report;
    let grown = report["verdict"]["grown_bytes"].as_f64().expect("grown");
    let truth = hunted.truth["layers"]["heap_in_use"].as_f64().expect("a truth");
    assert!((grown / truth - 1.0).abs() < 0.06, "{grown} of {truth}: {report:#}");
    assert!(hunted.first_stack().contains(&"leak_chunk".to_owned()), "{report:#}");
}
