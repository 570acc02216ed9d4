//! Programs to look at.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use plumb_hooks::{Hooks, Tracer, TracerKind};
use plumb_target::Process;

/// A running program that ends with this value.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Starts it; its standard input stays open as long as it runs.
    pub fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap_or_else(|error| {
            panic!(
                "{}: {error}; install what scripts/packages-test.txt lists",
                program.to_string_lossy()
            )
        }))
    }

    /// Waits until it has printed a line, and returns the line.
    pub fn ready(mut self) -> Self {
        let out = self.0.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("reads");
        assert!(!line.is_empty(), "it ended without a word");
        self
    }

    pub fn process(&self) -> Process {
        Process::open(self.0.id()).expect("it runs")
    }

    pub fn scan(&self) -> Hooks {
        plumb_hooks::scan(&self.process()).expect("a scan")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The tracers but for the filter that a container puts on all its programs, tests included.
pub fn tracers(hooks: &Hooks) -> Vec<&Tracer> {
    hooks.tracers.iter().filter(|tracer| tracer.kind != TracerKind::Seccomp).collect()
}

/// A program or library of the lab, built.
pub fn lab(name: &str) -> PathBuf {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab").canonicalize().expect("lab");
    let target = format!("build/{name}");
    let made = Command::new("make").arg("-C").arg(&lab).arg(&target).output().expect("make");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    lab.join(target)
}

/// Where a library is, by the dynamic linker's cache.
pub fn library(name: &str) -> PathBuf {
    let known = Command::new("/sbin/ldconfig").arg("-p").output().expect("ldconfig");
    let text = String::from_utf8_lossy(&known.stdout).into_owned();
    let line =
        text.lines().find(|line| line.trim_start().starts_with(name) && line.contains("=> "));
    let line =
        line.unwrap_or_else(|| panic!("no {name}: install what scripts/packages-test.txt lists"));
    let path = line.rsplit("=> ").next().expect("a path");
    Path::new(path).canonicalize().expect("it is there")
}
