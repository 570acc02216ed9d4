//! What a growing process reaches first: its cgroup's limit, its own, or the machine's.

use std::fs;
use std::path::Path;

use plumb_target::{Process, select};

/// A limit, and how far away it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What limits: `machine`, `cgroup PATH`, `RLIMIT_AS`, `RLIMIT_DATA`.
    pub name: String,
    /// Bytes left.
    pub headroom_bytes: u64,
}

/// The nearest limit of a process; `None` where nothing can be read.
pub fn nearest(process: &Process) -> Option<Limit> {
    let limits = [
        machine(),
        cgroup(process),
        own(process, "Max address space", "VmSize:", "RLIMIT_AS"),
        own(process, "Max data size", "VmData:", "RLIMIT_DATA"),
    ];
    limits.into_iter().flatten().min_by_key(|limit| limit.headroom_bytes)
}

fn machine() -> Option<Limit> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let headroom_bytes = kib(&meminfo, "MemAvailable:")?;
    Some(Limit { name: "machine".into(), headroom_bytes })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The nearest of the process's memory cgroup and those above it.
fn cgroup(process: &Process) -> Option<Limit> {
    let (directory, version) = select::memory_cgroup(process)?;
    let (usage, limit) = match version {
        1 => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        _ => ("memory.current", "memory.max"),
    };
    let number = |dir: &Path, file| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok();
    directory
        .ancestors()
        .map_while(|dir| Some((dir, number(dir, usage)?)))
        .filter_map(|(dir, used): (&Path, u64)| {
            let most: u64 = number(dir, limit)?;
            let used = used.saturating_sub(cached(dir, version));
            // Version 1 has no word for "none", only a number that no machine has.
            (most < 1 << 60).then(|| Limit {
                name: format!("cgroup {}", dir.display()),
                headroom_bytes: most.saturating_sub(used),
            })
        })
        .min_by_key(|limit| limit.headroom_bytes)
}

/// Cached file pages of a cgroup and those below it: charged, and given back before anything dies.
fn cached(directory: &Path, version: u8) -> u64 {
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let prefix = if version == 1 { "total_" } else { "" };
    let rows = ["inactive_file", "active_file"].map(|row| format!("{prefix}{row} "));
    let bytes = |row: &String| stat.lines().find_map(|line| line.strip_prefix(row.as_str()));
    rows.iter().filter_map(bytes).filter_map(|bytes| bytes.parse::<u64>().ok()).sum()
}

/// A limit on address space counts what is mapped, resident or not.
fn own(process: &Process, row: &str, counter: &str, name: &str) -> Option<Limit> {
    let limits = String::from_utf8(process.read("limits").ok()?).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(row))?;
    let most: u64 = line.split_whitespace().next()?.parse().ok()?;
    let status = String::from_utf8(process.read("status").ok()?).ok()?;
    let used = kib(&status, counter)?;
    Some(Limit { name: name.into(), headroom_bytes: most.saturating_sub(used) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_the_machine() {
        let limit = nearest(&Process::own()).expect("a limit");
        assert!(limit.headroom_bytes > 0, "{limit:?}");
        assert!(limit.headroom_bytes <= machine().expect("meminfo").headroom_bytes + (64 << 20));
    }

    #[test]
    fn cached_files_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let stat =
            "inactive_file 10\nactive_file 3\ntotal_inactive_file 100\ntotal_active_file 7\n";
        fs::write(dir.path().join("memory.stat"), stat).unwrap();
        assert_eq!((cached(dir.path(), 1), cached(dir.path(), 2)), (107, 13));
        assert_eq!(cached(Path::new("/no/such/cgroup"), 2), 0);
    }

    #[test]
    fn counters_are_in_kib() {
        assert_eq!(kib("A: 1\nVmSize:\t    16 kB\n", "VmSize:"), Some(16 << 10));
        assert_eq!(kib("VmSize:\t x kB\n", "VmSize:"), None);
    }
}
