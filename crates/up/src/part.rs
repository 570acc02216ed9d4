//! One process of the stack: its start, and its log with a prefix.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::parent::PARENT;
use crate::plan::Spec;

/// A prefix before each line of a part's log, coloured on a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// `index` chooses the colour; `width` aligns the names.
    pub fn new(name: &str, index: usize, width: usize, colour: bool) -> Self {
        if colour {
            Self(format!("\x1b[{}m{name:width$} |\x1b[0m ", 31 + index % 6))
        } else {
            Self(format!("{name:width$} | "))
        }
    }

    pub fn say(&self, line: &str) {
        eprintln!("{}{line}", self.0);
    }
}

/// Starts the part; its output goes, line by line, to our standard error.
pub(crate) fn spawn(program: &Path, spec: &Spec, prefix: &Prefix) -> std::io::Result<Child> {
    let mut child = Command::new(program)
        .args(&spec.args)
        .env(PARENT, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is ours to pass on, in order: the router first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(out) = child.stdout.take() {
        tokio::spawn(follow(out, prefix.clone()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(follow(err, prefix.clone()));
    }
    Ok(child)
}

async fn follow(log: impl AsyncRead + Unpin, prefix: Prefix) {
    let mut lines = BufReader::new(log).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        prefix.say(&String::from_utf8_lossy(&line));
    }
}
