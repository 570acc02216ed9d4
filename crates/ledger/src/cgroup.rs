//! What the kernel charges to a cgroup, beside the sum of its processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use plumb_target::{Process, cgroups};
use serde::Serialize;

use crate::Together;
use crate::sample::Sample;

/// A memory cgroup and the processes of it that were sampled.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Its path within the hierarchy's mount.
    pub path: String,
    /// 1 or 2.
    pub version: u8,
    /// What the kernel charges to it now; `None` at the root of version 2, which is not counted as a whole.
    pub usage_bytes: Option<u64>,
    /// Where the kernel would kill, `None` without a limit.
    pub limit_bytes: Option<u64>,
    /// The kernel's own split, under its own names.
    pub split: BTreeMap<String, u64>,
    /// Its processes that were sampled.
    #[serde(flatten)]
    pub together: Together,
}

/// The lines of `memory.stat` that split the usage: version 1 calls, then version 2 calls.
const SPLIT: [&[&str]; 2] = [
    &["total_rss", "total_cache", "total_mapped_file", "total_shmem", "total_swap"],
    &["anon", "file", "file_mapped", "shmem", "kernel", "sock", "pagetables", "kernel_stack"],
];

/// The memory cgroups of these samples, each once.
pub fn groups(samples: &[Sample]) -> Vec<Group> {
    let mut found: BTreeMap<PathBuf, (u8, Vec<&Sample>)> = BTreeMap::new();
    for sample in samples {
        let Ok(process) = Process::open(sample.pid) else { continue };
        if let Some((dir, version)) = cgroups::memory(&process) {
            found.entry(dir).or_insert((version, Vec::new())).1.push(sample);
        }
    }
    found.into_iter().filter_map(|(dir, (version, of))| group(&dir, version, &of)).collect()
}

fn group(dir: &Path, version: u8, samples: &[&Sample]) -> Option<Group> {
    let (usage, limit) = if version == 1 {
        ("memory.usage_in_bytes", "memory.limit_in_bytes")
    } else {
        ("memory.current", "memory.max")
    };
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let split = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| SPLIT[usize::from(version) - 1].contains(name))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect();
    Some(Group {
        path: path(dir),
        version,
        usage_bytes: number(&dir.join(usage)),
        limit_bytes: number(&dir.join(limit)).filter(|&limit| limit < 1 << 60),
        split,
        together: Together::of(samples.iter().copied()),
    })
}

/// Within the usual mount; `/` is its root.
fn path(dir: &Path) -> String {
    match dir.strip_prefix("/sys/fs/cgroup") {
        Ok(root) if root.as_os_str().is_empty() => "/".to_owned(),
        within => within.unwrap_or(dir).display().to_string(),
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn both_versions_are_read_and_no_limit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("memory.stat", "cache 5\ntotal_cache 50\ntotal_rss 60\nodd\n"),
                ("memory.usage_in_bytes", "120\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        let v1 = group(dir.path(), 1, &[]).unwrap();
        assert_eq!((v1.usage_bytes, v1.limit_bytes), (Some(120), None));
        assert_eq!(
            v1.split.into_iter().collect::<Vec<_>>(),
            [("total_cache".to_owned(), 50), ("total_rss".to_owned(), 60)]
        );
        write(
            dir.path(),
            &[
                ("memory.stat", "anon 7\nfile 8\nworkingset_refault_anon 1\n"),
                ("memory.current", "15\n"),
                ("memory.max", "4096\n"),
            ],
        );
        let v2 = group(dir.path(), 2, &[]).unwrap();
        assert_eq!((v2.usage_bytes, v2.limit_bytes, v2.split.len()), (Some(15), Some(4096), 2));
        write(dir.path(), &[("memory.max", "max\n")]);
        assert_eq!(group(dir.path(), 2, &[]).unwrap().limit_bytes, None);
        fs::remove_file(dir.path().join("memory.current")).unwrap();
        assert_eq!(group(dir.path(), 2, &[]).unwrap().usage_bytes, None, "as at the root");
        assert_eq!(path(Path::new("/sys/fs/cgroup")), "/");
        assert_eq!(path(Path::new("/sys/fs/cgroup/a.slice")), "a.slice");
    }
}
