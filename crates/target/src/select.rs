//! From what a person names to processes: a pid, a name pattern, a cgroup or a container id.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Process, process};

/// The processes that `text` names, by pid, each once:
/// - digits: that pid;
/// - a path that starts with `/`: the cgroup of that name (in any hierarchy) and those below it;
/// - 12 to 64 hexadecimal digits: the container whose id starts so, seen in the cgroup's path;
/// - else a name pattern with `*` and `?`, against the kernel's short name, the executable's file
///   name and the first two arguments' file names; a pattern without a wildcard matches whole names.
///
/// # Errors
/// [`Error::NoMatch`] where nothing answers, and for a pid what [`Process::open`] says.
pub fn resolve(text: &str) -> Result<Vec<Process>, Error> {
    if let Ok(pid) = text.parse() {
        return Process::open(pid).map(|process| vec![process]);
    }
    let own = std::process::id();
    let found: BTreeSet<Process> = if text.starts_with('/') {
        in_cgroup(|path| Path::new(path).starts_with(text.trim_end_matches('/')))
    } else {
        let mut found = BTreeSet::new();
        if is_container_id(text) {
            found = in_cgroup(|path| path.split(['/', '-', '.', ':']).any(|p| p.starts_with(text)));
        }
        if found.is_empty() {
            found = process::all().into_iter().filter(|p| has_name(p, text)).collect();
        }
        found
    };
    let found: Vec<Process> = found.into_iter().filter(|p| p.pid() != own).collect();
    if found.is_empty() { Err(Error::NoMatch(text.to_owned())) } else { Ok(found) }
}

fn is_container_id(text: &str) -> bool {
    (12..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn in_cgroup(wanted: impl Fn(&str) -> bool) -> BTreeSet<Process> {
    process::all().into_iter().filter(|p| cgroups(p).iter().any(|c| wanted(&c.path))).collect()
}

fn has_name(process: &Process, pattern: &str) -> bool {
    let mut names: Vec<String> = process.name().into_iter().collect();
    let executable = process.executable().ok();
    let arguments = process.command().unwrap_or_default();
    let paths = executable.into_iter().chain(arguments.into_iter().take(2).map(PathBuf::from));
    names.extend(paths.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())));
    names.iter().any(|name| matches(pattern.as_bytes(), name.as_bytes()))
}

/// Shell matching with `*` and `?` alone; linear, by falling back to the last star.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&b) if b == b'?' || b == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// A process's place in one cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The hierarchy's controllers; empty for version 2.
    pub controllers: Vec<String>,
    /// The path within the hierarchy.
    pub path: String,
}

/// The cgroups that a process is in, one a hierarchy; none where they cannot be read.
pub fn cgroups(process: &Process) -> Vec<Cgroup> {
    let text = process.read("cgroup").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?.split(',').filter(|c| !c.is_empty());
            let controllers = controllers.map(str::to_owned).collect();
            Some(Cgroup { controllers, path: parts.next()?.to_owned() })
        })
        .collect()
}

/// The directory of the memory controller's cgroup of a process and the version of the hierarchy
/// (1 or 2), where it is mounted here.
pub fn memory_cgroup(process: &Process) -> Option<(PathBuf, u8)> {
    let groups = cgroups(process);
    let under = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    if let Some(v1) = groups.iter().find(|g| g.controllers.iter().any(|c| c == "memory")) {
        // Inside a container the path may name what is not mounted: then the mount's root is ours.
        let exact = under("/sys/fs/cgroup/memory", &v1.path);
        let found = if exact.is_dir() { exact } else { PathBuf::from("/sys/fs/cgroup/memory") };
        return found.join("memory.stat").is_file().then_some((found, 1));
    }
    let v2 = groups.iter().find(|g| g.controllers.is_empty())?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .flat_map(|root| [under(root, &v2.path), PathBuf::from(root)])
        .find(|dir| fs::metadata(dir.join("memory.stat")).is_ok())
        .map(|dir| (dir, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("python3*", "python3.11", true),
            ("*.py", "serve.py", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("python", "python3.11", false),
            ("?at", "cat", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn finds_by_pid_by_name_and_says_what_is_not_there() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert_eq!(resolve(&child.id().to_string()).unwrap(), [process]);
        // The name is the parent's until the child has run exec.
        while !resolve("ca?").is_ok_and(|found| found.contains(&process)) {
            std::thread::yield_now();
        }
        if let Some(group) = cgroups(&process).iter().find(|g| g.path.len() > 1) {
            assert!(resolve(&group.path).unwrap().contains(&process));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(resolve("no-such-name-*"), Err(Error::NoMatch(_))));
    }
}
