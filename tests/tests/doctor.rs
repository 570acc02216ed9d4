//! `plumb doctor` as root and as a user who may do little.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use plumb_tests::process::plumb;
use serde_json::Value;

/// `nobody` of most systems.
const NOBODY: u32 = 65_534;

fn checks(mut command: Command) -> Vec<Value> {
    let output = command.args(["doctor", "--json"]).output().expect("plumb runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("only JSON");
    json["checks"].as_array().expect("checks").clone()
}

/// Every row says what was found, and what to do where not all is well.
fn hold_to_form(checks: &[Value]) {
    for check in checks {
        for key in ["name", "found", "needed_for"] {
            assert!(check[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {check}");
        }
        let advice = check["advice"].as_str();
        match check["state"].as_str() {
            Some("ok") => assert_eq!(advice, None, "{check}"),
            Some("limited" | "missing") => assert!(advice.is_some_and(|a| a.len() > 20), "{check}"),
            other => panic!("{other:?} is no state: {check}"),
        }
    }
    let names: Vec<&str> = checks.iter().filter_map(|c| c["name"].as_str()).collect();
    for name in [
        "kernel",
        "cgroup",
        "transparent_huge_pages",
        "capabilities",
        "ptrace_scope",
        "perf_event_paranoid",
        "read_memory",
        "page_table",
        "ledger",
        "bpf",
        "btf",
        "tracepoints",
        "uprobes",
        "unwinding",
        "glibc",
        "allocators",
        "cpython",
        "processor",
    ] {
        assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name} in {names:?}");
    }
}

fn state<'a>(checks: &'a [Value], name: &str) -> Option<&'a str> {
    checks.iter().find(|check| check["name"] == name)?["state"].as_str()
}

#[test]
fn it_tells_what_works_here() {
    let checks = checks(Command::new(plumb()));
    hold_to_form(&checks);
    // A child's memory can be read wherever these tests can run at all.
    for name in ["read_memory", "ledger", "unwinding"] {
        assert_eq!(state(&checks, name), Some("ok"), "{checks:?}");
    }
}

#[test]
fn it_knows_what_an_unprivileged_user_may_not() {
    if !rustix::process::geteuid().is_root() {
        // Then the other test has seen it as such a user.
        return;
    }
    // The build's folder may be closed to others.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("plumb");
    std::fs::copy(plumb(), &copy).expect("a copy of the binary");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let checks = checks(command);
    hold_to_form(&checks);
    assert_eq!(state(&checks, "capabilities"), Some("missing"), "{checks:?}");
    assert_eq!(state(&checks, "bpf"), Some("missing"), "{checks:?}");
    assert_eq!(state(&checks, "ledger"), Some("ok"), "{checks:?}");
}

#[test]
fn people_get_a_line_a_check_and_a_count() {
    let output = Command::new(plumb()).arg("doctor").output().expect("plumb runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("kernel"), "{text}");
    assert!(text.lines().last().is_some_and(|l| l.contains(" ok, ")), "{text}");
}
