//! `plumb hunt` must not hurt: nothing of it stays in a target, however it ends, and nothing is lost
//! at a rate that a server has. Needs root.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plumb_tests::process::{plumb, wait_for};
use plumb_tests::{lab, text};
use serde_json::Value;

/// A program that ends with this value.
struct Target(Child);

impl Target {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("starts"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it lives");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
    }

    /// Waits until the program has grown by so much.
    fn grow_by(&self, bytes: u64) {
        let from = self.resident();
        wait_for("it grows", Duration::from_secs(60), || {
            (self.resident() >= from + bytes).then_some(())
        });
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn hooks(pid: u32) -> Value {
    let out = Command::new(plumb()).args(["hooks", "--json", &pid.to_string()]).output();
    serde_json::from_slice(&out.expect("runs").stdout).expect("JSON")
}

/// Ended by a signal that it cannot see, at the mappings' floor and in the midst of its bursts of probes
/// on malloc, which another process takes off.
#[test]
fn a_hunt_that_is_killed_leaves_nothing() {
    for (program, floor) in
        [("mmap_anonymous", "mappings"), ("malloc_in_use", "heap"), ("malloc_in_use", "heap")]
    {
        let mut command = Command::new(lab::build().join(program));
        let target = Target::start(command.env("LAB_RATE", "8000000").env("LAB_SECONDS", "120"));
        target.grow_by(1 << 20);
        let before = text::of(target.pid());
        let mut hunt = Command::new(plumb())
            .args(["hunt", &target.pid().to_string(), "--for", "60s", "--floor", floor, "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        target.grow_by(24 << 20);
        hunt.kill().expect("ours");
        hunt.wait().expect("ours");
        wait_for("the text is as it was", Duration::from_secs(20), || {
            (before == text::of(target.pid())).then_some(())
        });
        let tracers = hooks(target.pid())["tracers"].as_array().cloned().expect("tracers");
        assert!(!tracers.iter().any(|tracer| tracer["kind"] == "uprobe"), "{tracers:?}");
        target.grow_by(4 << 20);
    }
}

/// 10,000 maps and 10,000 unmaps a second.
#[test]
fn nothing_is_lost_and_its_memory_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("work");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/hunt/work.c");
    let made = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
    assert!(made.expect("cc").success());
    let mut target = Target::start(Command::new(&program).args(["pace", "60000", "10000"]));
    let mut out = BufReader::new(target.0.stdout.take().expect("piped"));
    out.read_line(&mut String::new()).expect("ready");
    let hunt = Command::new(plumb())
        .args(["hunt", &target.pid().to_string(), "--for", "6s", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    target.0.stdin.as_mut().expect("piped").write_all(b"\n").expect("starts its work");
    let out = hunt.wait_with_output().expect("ends");
    let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    assert_eq!(report["lost_events"], 0, "{:#}", report["cost"]);
    let (events, rss) = (&report["cost"]["events"], &report["cost"]["rss_bytes"]);
    assert!(events.as_u64().is_some_and(|n| n > 20_000), "{:#}", report["cost"]);
    assert!(rss.as_u64().is_some_and(|bytes| bytes < 256 << 20), "{:#}", report["cost"]);
}

/// The contract of docs/json.md for `plumb hooks`.
#[test]
fn the_hooks_have_their_form() {
    let mut command = Command::new(lab::build().join("munmap_patched"));
    let target = Target::start(command.env("LAB_RATE", "8000000"));
    target.grow_by(1 << 20);
    let hooks = hooks(target.pid());
    assert_eq!(hooks["pid"], target.pid());
    for key in ["patched", "interposed", "preloads", "tracers", "unread"] {
        assert!(hooks[key].is_array(), "{key}: {hooks:#}");
    }
    let [row] = hooks["patched"].as_array().expect("rows").as_slice() else { panic!("{hooks:#}") };
    assert_eq!(row["symbol"], "munmap");
    assert!(row["aliases"].as_array().is_some_and(|all| all.iter().all(Value::is_string)));
    assert!(row["module"].as_str().is_some_and(|path| path.starts_with('/')), "{row:#}");
    assert!(row["address"].is_u64());
    for key in ["target_symbol", "owner"] {
        assert!(row[key].is_null(), "it leads nowhere: {row:#}");
    }
    let [file, memory] =
        ["file_bytes", "memory_bytes"].map(|key| row[key].as_str().expect("hex").to_owned());
    assert_eq!((memory.as_str(), file.len()), ("31c0c3", 6));
    assert!(file.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{file}");
}
