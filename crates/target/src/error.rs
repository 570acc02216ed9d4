//! What can go wrong when another process is read, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A reading that failed. Each variant names the process or file and what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process has this pid, or the one that had it has ended.
    #[error("process {pid} does not exist, or has just ended")]
    Vanished {
        /// The pid that was asked for.
        pid: u32,
    },
    /// The kernel refuses to show another user's process.
    #[error(
        "process {pid}: no permission to read {what}; run as root, as the process's own user, or \
         with CAP_SYS_PTRACE"
    )]
    Denied {
        /// The pid that was asked for.
        pid: u32,
        /// The file or memory that was refused.
        what: String,
    },
    /// The process has ended and only waits for its parent.
    #[error("process {pid} is a zombie: its memory is gone, its parent has not waited for it yet")]
    Zombie {
        /// The pid that was asked for.
        pid: u32,
    },
    /// A thread of the kernel: no user memory.
    #[error("process {pid} is a kernel thread: it has no memory of its own")]
    KernelThread {
        /// The pid that was asked for.
        pid: u32,
    },
    /// Bytes of the target that are not mapped, or not readable.
    #[error("process {pid}: {length} bytes at {address:#x} cannot be read")]
    Unreadable {
        /// The pid that was asked for.
        pid: u32,
        /// Where the read started.
        address: u64,
        /// How many bytes were wanted.
        length: usize,
    },
    /// A file of `/proc` whose form is not known.
    #[error("{what}: not understood: {text:?}")]
    Parse {
        /// The file.
        what: &'static str,
        /// The line, shortened.
        text: String,
    },
    /// A file that is not an ELF file that can be used.
    #[error("{}: not a usable ELF file: {reason}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern, cgroup or container that names nothing that runs.
    #[error("no running process matches {0:?} (a pid, a name pattern, a cgroup or a container id)")]
    NoMatch(String),
    /// Anything else that the system answered.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// What a failed access to a file of process `pid` means.
    pub(crate) fn of(pid: u32, path: &Path, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Self::Vanished { pid },
            Some(libc::EACCES | libc::EPERM) => {
                Self::Denied { pid, what: path.display().to_string() }
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn parse(what: &'static str, text: &[u8]) -> Self {
        let shown = &text[..text.len().min(120)];
        Self::Parse { what, text: String::from_utf8_lossy(shown).into_owned() }
    }
}
