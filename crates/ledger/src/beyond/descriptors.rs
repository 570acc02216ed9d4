//! Files in memory and sockets that a process holds by descriptor.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use plumb_target::Process;
use plumb_target::mounts::MemoryMounts;

use super::sysv;

/// The mode of a descriptor's link says whether it reads.
const READS: u32 = 0o400;

/// A file in memory, once however many descriptors it has.
pub(super) struct File {
    pub name: String,
    /// Of its file system, and within that.
    pub device: u64,
    pub inode: u64,
    /// Bytes that it takes, mapped or not.
    pub blocks: u64,
    pub descriptors: Vec<u32>,
}

/// What descriptors hold.
#[derive(Default)]
pub(super) struct Held {
    pub memfds: Vec<File>,
    pub tmpfs: Vec<File>,
    /// Inodes of sockets.
    pub sockets: Vec<u64>,
    /// One descriptor of each pipe that is read.
    pub pipes: Vec<u32>,
}

/// The memory files and sockets of a process; `None` where its descriptors may not be seen.
pub(super) fn held(process: &Process) -> Option<Held> {
    let mounts = MemoryMounts::read(process);
    let mut held = Held::default();
    let mut memory: HashMap<(u64, u64), (bool, File)> = HashMap::new();
    let mut pipes = HashSet::new();
    for entry in fs::read_dir(process.path("fd")).ok()?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let name = target.to_string_lossy();
        if let Some(inode) = name.strip_prefix("socket:[").and_then(|n| n.strip_suffix(']')) {
            held.sockets.extend(inode.parse::<u64>().ok());
            continue;
        }
        let descriptor = entry.file_name().to_str().and_then(|n| n.parse().ok()).unwrap_or(0);
        if name.starts_with("pipe:[") {
            let reads = entry.metadata().is_ok_and(|link| link.mode() & READS != 0);
            if reads && pipes.insert(target) {
                held.pipes.push(descriptor);
            }
            continue;
        }
        if !name.starts_with('/') {
            continue;
        }
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        let is_memfd = name.starts_with("/memfd:");
        if !meta.is_file() || !(is_memfd || mounts.is_memory(device(meta.dev()))) {
            continue;
        }
        match memory.entry((meta.dev(), meta.ino())) {
            Entry::Occupied(mut known) => known.get_mut().1.descriptors.push(descriptor),
            Entry::Vacant(new) => {
                let file = File {
                    name: name.into_owned(),
                    device: meta.dev(),
                    inode: meta.ino(),
                    blocks: meta.blocks() * 512,
                    descriptors: vec![descriptor],
                };
                new.insert((is_memfd, file));
            }
        }
    }
    for (is_memfd, file) in memory.into_values() {
        if is_memfd { held.memfds.push(file) } else { held.tmpfs.push(file) }
    }
    held.tmpfs.extend(sysv::detached(process));
    Some(held)
}

/// `st_dev` to `(major, minor)`, as glibc's `gnu_dev_major` and `gnu_dev_minor`.
fn device(dev: u64) -> (u32, u32) {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    (major as u32, minor as u32)
}
