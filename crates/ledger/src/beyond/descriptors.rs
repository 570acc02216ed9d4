//! Files in memory and sockets that a process holds by descriptor.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use plumb_target::Process;
use plumb_target::mounts::MemoryMounts;

use super::{HeldFile, Kind, sysv};

/// The mode of a descriptor's link says whether it reads.
const READS: u32 = 0o400;

/// What descriptors hold.
#[derive(Default)]
pub(super) struct Held {
    /// Each once, however many descriptors it has.
    pub files: Vec<HeldFile>,
    /// Inodes of sockets.
    pub sockets: Vec<u64>,
    /// One descriptor of each pipe that is read.
    pub pipes: Vec<u32>,
}

/// The memory files and sockets of a process; `None` where its descriptors may not be seen.
pub(super) fn held(process: &Process) -> Option<Held> {
    let mounts = MemoryMounts::read(process);
    let mut held = Held::default();
    let mut files: HashMap<(u64, u64), HeldFile> = HashMap::new();
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
        let id = (meta.dev(), meta.ino());
        let file = files.entry(id).or_insert_with(|| HeldFile {
            kind: if is_memfd { Kind::MemfdUnmapped } else { Kind::TmpfsUnmapped },
            name: name.into_owned(),
            id,
            bytes: meta.blocks() * 512,
            descriptors: Vec::new(),
        });
        file.descriptors.push(descriptor);
    }
    held.files.extend(files.into_values().chain(sysv::detached(process)));
    Some(held)
}

/// `st_dev` to `(major, minor)`, as glibc's `gnu_dev_major` and `gnu_dev_minor`.
fn device(dev: u64) -> (u32, u32) {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    (major as u32, minor as u32)
}
