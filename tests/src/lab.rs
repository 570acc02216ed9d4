//! The programs of `lab/`: started, their truth read, ended with the test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The folder of the lab.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab")
}

/// Builds the lab once; other tests that build it at the same time wait.
pub fn build() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| make("all")).clone()
}

/// Builds one target of the lab's Makefile and returns the folder of what is built.
pub fn make(target: &str) -> PathBuf {
    let build = folder().join("build");
    std::fs::create_dir_all(&build).expect("lab/build can be made");
    let lock = File::create(build.join(".lock")).expect("lab/build can be written");
    lock.lock().expect("a lock of our own");
    let done = Command::new("make")
        .arg("-sC")
        .arg(folder())
        .arg(target)
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make is installed");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "make -C lab {target} failed: run `make test-packages`\n{errors}"
    );
    build
}

/// A program that has taken its bytes and stays as it is.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// What it says of itself.
    pub truth: Value,
}

impl Program {
    /// Starts a program of the lab by name: `NAME` in C or Rust, `NAME.py` under `python3`.
    pub fn named(name: &str, environment: &[(&str, &str)]) -> Self {
        let program = build().join(name);
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        Self::start(command)
    }

    /// Starts a Python program of the lab under one interpreter.
    pub fn python(interpreter: &Path, name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(interpreter);
        command.arg(folder().join(name)).envs(environment.iter().copied());
        Self::start(command)
    }

    /// Starts any command that keeps to the lab's convention, and waits for its truth.
    pub fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| {
                panic!("{command:?} cannot start ({e}): run `make test-packages`")
            });
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("the truth is text");
        let truth = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("{command:?} told no truth: {e}: {line:?}"));
        Self { child, truth }
    }

    /// The process that the truth is about.
    pub fn pid(&self) -> u64 {
        self.truth["pid"].as_u64().expect("a pid")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends when its input closes; one that does not is a test's to find, not to wait for.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}
