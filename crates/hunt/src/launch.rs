//! A command that waits for the attach before its first instruction.

use std::process::{Child, Command, Stdio};

use plumb_target::Process;
use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// A command that was started and stands still until [`Launched::go`].
#[derive(Debug)]
pub struct Launched {
    child: Child,
    process: Process,
}

impl Launched {
    /// Starts a shell that stops itself and, once it may go on, becomes the command. What it
    /// prints goes to standard error where `apart`, so that standard output is the report's.
    ///
    /// # Errors
    /// Where no process can be made, or it ends before it stops.
    pub fn start(command: &[String], apart: bool) -> Result<Self, Error> {
        let out = if apart { Stdio::from(std::io::stderr()) } else { Stdio::inherit() };
        let mut child = Command::new("/bin/sh")
            .stdout(out)
            .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
            .args(command)
            .spawn()
            .map_err(Error::Start)?;
        let process = Process::open(child.id())?;
        while process.stat()?.state != 'T' {
            if let Some(status) = child.try_wait().map_err(Error::Start)? {
                return Err(Error::Start(std::io::Error::other(status.to_string())));
            }
            std::thread::yield_now();
        }
        Ok(Self { child, process })
    }

    /// The process, which the command will have too.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Lets it go on.
    pub fn go(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have been killed meanwhile: then there is nothing to let go.
            kill_process(pid, Signal::CONT).ok();
        }
    }
}
