//! System V shared memory that nobody has attached: it is in nobody's RSS, and it stays until it is removed.

use std::fs;

use plumb_target::Process;

use super::{HeldFile, Kind};

/// The segments that a process made and that nobody has attached; none of another IPC namespace's.
pub(super) fn detached(process: &Process) -> Vec<HeldFile> {
    let theirs = fs::read_link(process.path("ns/ipc"));
    if theirs.ok() != fs::read_link("/proc/self/ns/ipc").ok() {
        return Vec::new();
    }
    let text = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| segment(line, process.pid())).collect()
}

/// `key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap`.
fn segment(line: &str, creator: u32) -> Option<HeldFile> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    if number(4)? != u64::from(creator) || number(6)? != 0 {
        return None;
    }
    let id = number(1)?;
    Some(HeldFile {
        kind: Kind::TmpfsUnmapped,
        name: format!("System V shared memory {id}, not attached"),
        // No file's: mappings are looked for by inode.
        id: (u64::MAX, u64::MAX - id),
        bytes: number(14)?,
        descriptors: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_made_and_nobody_has_attached() {
        let line = |creator, attached| {
            format!("0 65575 600 200000 {creator} 1347 {attached} 0 0 0 0 1 1 1 204800 4096")
        };
        let file = segment(&line(7, 0), 7).expect("a segment");
        assert_eq!((file.bytes, file.id.1), (204_800, u64::MAX - 65_575));
        assert!(file.name.contains("65575"));
        assert!(segment(&line(7, 1), 7).is_none() && segment(&line(8, 0), 7).is_none());
        assert!(segment("key shmid", 7).is_none());
    }
}
