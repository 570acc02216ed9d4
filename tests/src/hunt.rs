//! A program of the lab under `plumb hunt`, and both its truth and the report.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab;
use crate::process::{plumb, wait_for};

/// What a hunt said, and what was so.
#[derive(Debug)]
pub struct Hunted {
    /// `--json`.
    pub report: Value,
    /// The program's own line.
    pub truth: Value,
}

impl Hunted {
    /// The names of the functions on the first culprit's stack, innermost first.
    pub fn first_stack(&self) -> Vec<String> {
        let frames = self.report["culprits"][0]["frames"].as_array().cloned().unwrap_or_default();
        frames.iter().filter_map(|f| Some(f["function"].as_str()?.to_owned())).collect()
    }

    /// Outstanding bytes of the stacks that have this function.
    pub fn held_by(&self, function: &str) -> u64 {
        let culprits = self.report["culprits"].as_array().expect("culprits");
        let has = |c: &&Value| {
            c["frames"].as_array().is_some_and(|f| f.iter().any(|f| f["function"] == function))
        };
        let held = |c: &Value| c["outstanding_bytes"].as_u64();
        culprits.iter().filter(has).filter_map(held).sum()
    }
}

/// Starts a command of the lab under a hunt, from its first instruction, at `rate` bytes a second.
pub fn start(command: &[&str], rate: u64, options: &[&str]) -> Child {
    lab::build();
    let program = lab::folder().join(command[command.len() - 1]);
    let mut hunt = Command::new(plumb());
    hunt.args(["hunt", "--json"]).args(options).arg("--");
    hunt.args(&command[..command.len() - 1]).arg(program);
    hunt.env("LAB_RATE", rate.to_string()).env("LAB_SECONDS", "120");
    hunt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    hunt.spawn().expect("plumb starts")
}

/// Lets the program grow by `bytes`, stops it, ends the hunt, and lets it tell its truth.
pub fn hunt(command: &[&str], rate: u64, bytes: u64) -> Hunted {
    let mut child = start(command, rate, &["--for", "110s"]);
    let target = grown_child(&mut child, bytes);
    kill_process(target, Signal::STOP).expect("the target runs");
    kill_process(Pid::from_child(&child), Signal::INT).expect("the hunt runs");
    let mut report = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut report).expect("UTF-8");
    drop(child.stdin.take());
    kill_process(target, Signal::CONT).expect("the target is stopped");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let lines: Vec<String> = lines.map_while(Result::ok).collect();
    let truth = lines.iter().rev().find_map(|l| serde_json::from_str(l).ok());
    assert!(child.wait().expect("ours").success(), "{command:?}: {lines:?}");
    Hunted {
        report: serde_json::from_str(&report).unwrap_or_else(|e| panic!("{e}: {report} {lines:?}")),
        truth: truth.unwrap_or_else(|| panic!("{command:?} told no truth: {lines:?}")),
    }
}

/// Waits until a process below the hunt has grown, and gives its pid.
fn grown_child(hunt: &mut Child, bytes: u64) -> Pid {
    wait_for("the target grows", Duration::from_secs(100), || {
        if let Some(status) = hunt.try_wait().expect("ours") {
            let mut log = String::new();
            hunt.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
            panic!("the hunt ended with {status}: {log}");
        }
        let grown = children(hunt.id()).into_iter().find(|pid| weight(*pid) > bytes);
        grown.and_then(|pid| Pid::from_raw(pid.cast_signed()))
    })
}

/// Resident bytes.
pub fn weight(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    kib * 1024
}

/// The processes below one.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    let direct: Vec<u32> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    let below: Vec<u32> = direct.iter().flat_map(|p| children(*p)).collect();
    direct.into_iter().chain(below).collect()
}
