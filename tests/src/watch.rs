//! `plumb watch --json` as a user runs it, and programs of the lab that grow under it.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::lab;
use crate::process::plumb;

/// `plumb watch` with these arguments, not yet run.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(plumb());
    command.arg("watch").args(arguments);
    command
}

/// Whether a verdict, or a layer's row, is that of a leak.
pub fn is_leak(value: &Value) -> bool {
    value["leak"] == true
}

/// What a watch said, and how it ended.
#[derive(Debug)]
pub struct Watched {
    /// Every object of standard output.
    pub lines: Vec<Value>,
    /// Its exit status.
    pub status: i32,
    /// Its standard error.
    pub errors: String,
}

impl Watched {
    /// Reads what a watch with `--json` left.
    pub fn of(output: &Output) -> Self {
        let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Self {
            lines: text.lines().map(parse).collect(),
            status: output.status.code().expect("an exit status"),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a watch to its end.
    pub fn run(arguments: &[&str]) -> Self {
        let mut command = command(&["--json"]);
        Self::of(&command.args(arguments).stdin(Stdio::null()).output().expect("plumb runs"))
    }

    /// The lines of one process.
    pub fn of_pid(&self, pid: u64) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["pid"] == pid)
    }

    /// The final verdict on one process.
    pub fn verdict(&self, pid: u64) -> &Value {
        let last = self.of_pid(pid).last();
        let last = last.unwrap_or_else(|| panic!("no line of {pid}: {}", self.errors));
        assert_eq!(last["last"], true, "the last line is the final one");
        &last["verdict"]
    }
}

/// A program that grows until it is told to end.
#[derive(Debug)]
pub struct Growing {
    child: Child,
    name: String,
}

impl Growing {
    /// Starts a program of the lab: `NAME` in C or Rust, `NAME.py` under `python3`.
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = if Path::new(name).extension().is_some_and(|e| e == "py") {
            let mut python = Command::new("python3");
            python.arg(lab::folder().join(name));
            python
        } else {
            Command::new(lab::build().join(name))
        };
        // Long after any test; it ends when its input closes.
        command.env("LAB_SECONDS", "120").envs(environment.iter().copied());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} cannot start: {e}"));
        Self { child, name: name.to_owned() }
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end, and returns its truth.
    pub fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut text = String::new();
        let mut out = self.child.stdout.take().expect("piped");
        out.read_to_string(&mut text).expect("the truth is text");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text:?}", self.name))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
