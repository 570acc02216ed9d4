//! A process of our own to look at: this program again, waiting.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use plumb_target::Process;

/// The argument that makes `plumb doctor` the process that is looked at.
const STILL: &str = "--still";

#[derive(Debug)]
pub(super) struct Child {
    child: std::process::Child,
    process: Process,
}

impl Child {
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["doctor", STILL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        if let Some(out) = child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut ready)?;
        }
        let process = Process::open(child.id()).map_err(io::Error::other)?;
        Ok(Self { child, process })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It ends by itself when its input closes; there is nothing of its to save.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// What the child does: says that it is there, and waits for its input to close.
pub fn stand_still() -> io::Result<()> {
    println!("ready");
    io::stdin().lines().for_each(drop);
    Ok(())
}
