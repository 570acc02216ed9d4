//! One process and its identity.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::Error;
use crate::status::{Stat, Status};

/// A process: its pid and when it started, so that a recycled pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    pid: u32,
    start: u64,
}

impl Process {
    /// The process that has `pid` now. The pid of a thread gives its process.
    ///
    /// # Errors
    /// Vanished, zombie, or kernel thread: none of them has memory to read.
    pub fn open(pid: u32) -> Result<Self, Error> {
        let status = Self { pid, start: 0 }.status()?;
        let process = Self { pid: status.tgid, start: 0 };
        let stat = process.stat()?;
        if stat.kernel_thread {
            return Err(Error::KernelThread { pid });
        }
        if matches!(stat.state, 'Z' | 'X') {
            return Err(Error::Zombie { pid });
        }
        Ok(Self { pid: process.pid, start: stat.start })
    }

    /// The process that calls.
    ///
    /// # Panics
    /// Where `/proc` is not mounted.
    pub fn own() -> Self {
        Self::open(std::process::id()).expect("/proc is mounted")
    }

    /// Its process id, in our pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since boot.
    pub fn start_ticks(&self) -> u64 {
        self.start
    }

    /// Whether it still runs: the pid is there, is not a zombie, and is the same process.
    pub fn is_alive(&self) -> bool {
        self.stat().is_ok_and(|stat| self.runs(&stat))
    }

    /// The same, by what was just read.
    pub fn runs(&self, stat: &Stat) -> bool {
        stat.start == self.start && !matches!(stat.state, 'Z' | 'X')
    }

    /// `/proc/PID/NAME`.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// `path` as the process sees it, reached through its own root and mount namespace.
    pub fn path_in_root(&self, path: &std::path::Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        self.path("root").join(inside)
    }

    /// The whole of `/proc/PID/NAME`.
    ///
    /// # Errors
    /// Vanished, denied, or what the system answered.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.path(name);
        let mut text = Vec::new();
        let mut read = || {
            let mut file = File::open(&path)?;
            file.read_to_end(&mut text)
        };
        read().map_err(|e| Error::of(self.pid, &path, e))?;
        Ok(text)
    }

    /// `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn stat(&self) -> Result<Stat, Error> {
        Stat::parse(&self.read("stat")?)
    }

    /// `/proc/PID/status`: counters that cost the kernel almost nothing.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn status(&self) -> Result<Status, Error> {
        Ok(Status::parse(&self.read("status")?))
    }

    /// Seconds that its first thread ran, and that it could have run and had to wait for a processor,
    /// since it began; 0 where the kernel does not count them.
    pub fn scheduled_s(&self) -> [f64; 2] {
        let text = self.read("schedstat").unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        [0; 2].map(|otherwise| words.next().unwrap_or(otherwise) as f64 * 1e-9)
    }

    /// The kernel's short name (at most 15 bytes).
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn name(&self) -> Result<String, Error> {
        let text = self.read("comm")?;
        Ok(String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned())
    }

    /// Its command line, one item an argument; empty where it was overwritten.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn command(&self) -> Result<Vec<String>, Error> {
        let text = self.read("cmdline")?;
        let text = text.strip_suffix(b"\0").unwrap_or(&text);
        if text.is_empty() {
            return Ok(Vec::new());
        }
        Ok(text.split(|&b| b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect())
    }

    /// The value of a variable of the environment that it started with.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn environment(&self, name: &str) -> Result<Option<OsString>, Error> {
        let text = self.read("environ")?;
        Ok(text.split(|&b| b == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        }))
    }

    /// The file that it runs, as the kernel names it.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn executable(&self) -> Result<PathBuf, Error> {
        let path = self.path("exe");
        fs::read_link(&path).map_err(|e| Error::of(self.pid, &path, e))
    }
}

/// Every process of the machine that has memory, by pid.
pub fn all() -> Vec<Process> {
    let mut found: Vec<Process> = pids().filter_map(|pid| Process::open(pid).ok()).collect();
    found.sort_unstable();
    found
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process that has memory, after its parent's pid; one read, since all are looked through often.
fn with_parent(pid: u32) -> Option<(u32, Process)> {
    let stat = Process { pid, start: 0 }.stat().ok()?;
    let lives = !stat.kernel_thread && !matches!(stat.state, 'Z' | 'X');
    lives.then_some((stat.parent, Process { pid, start: stat.start }))
}

/// `roots` and all their descendants, parents before children, each once.
pub fn tree(roots: &[Process]) -> Vec<Process> {
    let mut everyone: Vec<(u32, Process)> =
        pids().filter_map(with_parent).filter(|(parent, _)| *parent != 0).collect();
    everyone.sort_unstable();
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut queue: Vec<Process> = roots.iter().rev().copied().collect();
    while let Some(process) = queue.pop() {
        if !seen.insert(process) {
            continue;
        }
        found.push(process);
        let from = everyone.partition_point(|(parent, _)| *parent < process.pid());
        let to = everyone.partition_point(|(parent, _)| *parent <= process.pid());
        let children = everyone[from..to].iter();
        queue.extend(children.rev().map(|(_, child)| *child));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn knows_itself_and_its_children() {
        let own = Process::own();
        assert!(own.is_alive());
        let [ran, waited] = own.scheduled_s();
        assert!(ran >= 0.0 && waited >= 0.0 && ran + waited < 1e6, "{ran} {waited}");
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(tree(&[own]).contains(&process));
        assert_eq!(process.stat().unwrap().parent, own.pid());

        child.kill().unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(matches!(Process::open(child.id()), Err(Error::Zombie { .. })));
        child.wait().unwrap();
        assert!(matches!(Process::open(child.id()), Err(Error::Vanished { .. })));
        assert!(matches!(process.read("maps"), Err(Error::Vanished { .. })));
    }
}
