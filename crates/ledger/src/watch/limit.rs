//! What a growing process reaches first: its cgroup's limit, its own, or the machine's.

use std::fs;
use std::path::Path;

use plumb_target::{Process, cgroups};

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
    let (directory, version) = cgroups::memory(process)?;
    nearest_cgroup(&directory, version)
}

fn nearest_cgroup(directory: &Path, version: u8) -> Option<Limit> {
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
    fn of_nested_groups_the_one_with_the_least_room_is_nearest() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, current: u64, max: &str, stat: &str| {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            let files = [
                ("memory.current", current.to_string()),
                ("memory.max", max.into()),
                ("memory.stat", stat.into()),
            ];
            files
                .iter()
                .for_each(|(file, text)| fs::write(dir.join(file), format!("{text}\n")).unwrap());
            dir
        };
        // As a kernel without swap prints it, in part.
        let stat = "anon 3145728\nfile 1048576\nkernel 65536\nshmem 0\ninactive_anon 3145728\n\
                    inactive_file 524288\nactive_file 524288\nworkingset_refault_file 7";
        let slice = group("kubepods.slice", 90 << 20, "104857600", "inactive_file 0");
        let pod = group("kubepods.slice/pod.slice", 5 << 20, "max", stat);
        let own =
            group("kubepods.slice/pod.slice/cri-containerd-1.scope", 4 << 20, "33554432", stat);
        let limit = nearest_cgroup(&own, 2).unwrap();
        assert_eq!(limit.name, format!("cgroup {}", slice.display()));
        assert_eq!(limit.headroom_bytes, 104_857_600 - (90 << 20));
        fs::write(slice.join("memory.max"), "max\n").unwrap();
        let limit = nearest_cgroup(&own, 2).unwrap();
        assert_eq!(limit.name, format!("cgroup {}", own.display()));
        assert_eq!(limit.headroom_bytes, (32 << 20) - (3 << 20), "cached files are given back");
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(nearest_cgroup(&pod, 2), None);
    }

    #[test]
    fn counters_are_in_kib() {
        assert_eq!(kib("A: 1\nVmSize:\t    16 kB\n", "VmSize:"), Some(16 << 10));
        assert_eq!(kib("VmSize:\t x kB\n", "VmSize:"), None);
    }
}
