//! From what a person names to processes: a pid, a name pattern, a cgroup or a container id.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cgroups::{self, Cgroup, within_hierarchy};
use crate::{Error, Process, process};

/// The processes that `text` names, by pid, each once:
/// - digits: that pid;
/// - a path that starts with `/`: the cgroup of that name (in any hierarchy, or the directory where it is
///   mounted) and those below it;
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
        let path = within_hierarchy(text.trim_end_matches('/'));
        in_cgroup(|group| Path::new(&group.path).starts_with(&path))
    } else {
        let mut found = BTreeSet::new();
        if is_container_id(text) {
            found = in_cgroup(|group| group.is_container(text));
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

fn in_cgroup(wanted: impl Fn(&Cgroup) -> bool) -> BTreeSet<Process> {
    process::all().into_iter().filter(|p| cgroups::of(p).iter().any(&wanted)).collect()
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
        if let Some(group) = cgroups::of(&process).iter().find(|g| g.path.len() > 1) {
            assert!(resolve(&group.path).unwrap().contains(&process));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(resolve("no-such-name-*"), Err(Error::NoMatch(_))));
    }
}
