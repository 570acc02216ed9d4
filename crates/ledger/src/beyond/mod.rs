//! Memory that RSS does not show and that still takes the machine down.

mod descriptors;
mod pipes;
mod sockets;
mod sysv;
mod unix;

use std::collections::HashMap;

use plumb_target::{Error, Map, Process};
use serde::{Serialize, Serializer};

use crate::sample::Scene;

/// A kind of memory beyond RSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Memfds: blocks that this process holds by descriptor and does not have in its RSS.
    MemfdUnmapped,
    /// Files of tmpfs, likewise.
    TmpfsUnmapped,
    /// Swapped out.
    Swap,
    /// Page tables.
    PageTables,
    /// Kernel stacks of its threads.
    KernelStacks,
    /// What waits in its sockets, and in the pipes that it reads.
    Sockets,
    /// Pinned by drivers or locked: part of it may be in RSS too, but none of it can be taken back.
    Pinned,
    /// Pages of hugetlbfs.
    Hugetlb,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 8] = [
        Self::MemfdUnmapped,
        Self::TmpfsUnmapped,
        Self::Swap,
        Self::PageTables,
        Self::KernelStacks,
        Self::Sockets,
        Self::Pinned,
        Self::Hugetlb,
    ];

    /// Its name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemfdUnmapped => "memfd_unmapped",
            Self::TmpfsUnmapped => "tmpfs_unmapped",
            Self::Swap => "swap",
            Self::PageTables => "page_tables",
            Self::KernelStacks => "kernel_stacks",
            Self::Sockets => "sockets",
            Self::Pinned => "pinned",
            Self::Hugetlb => "hugetlb",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One kind of memory beyond RSS.
#[derive(Debug, Clone, Serialize)]
pub struct Beyond {
    /// What it is.
    pub kind: Kind,
    /// Its bytes; `None` where we may not see them.
    pub bytes: Option<u64>,
    /// The biggest single holders: files with their descriptors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Of what is held by a descriptor, what the process maps: it is resident, and not in `bytes`.
    #[serde(skip)]
    pub mapped_bytes: Option<u64>,
}

/// One thing that holds memory beyond RSS.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// The descriptors that hold it.
    pub descriptors: Vec<u32>,
}

/// A file in memory that a process holds by descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFile {
    /// Of what kind it is where nobody maps it.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Of its file system, and within that.
    pub id: (u64, u64),
    /// All bytes of it, mapped or not.
    pub bytes: u64,
    /// The descriptors that hold it.
    pub descriptors: Vec<u32>,
}

impl HeldFile {
    /// What of it is not mapped, given what is resident of each file that is, by inode.
    pub fn unmapped(&self, mapped: &HashMap<u64, u64>) -> u64 {
        self.bytes.saturating_sub(mapped.get(&self.id.1).copied().unwrap_or(0))
    }
}

/// The files in memory of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that it holds by descriptor.
    pub held: Vec<HeldFile>,
    /// What is resident of each that it maps, by inode.
    pub mapped: HashMap<u64, u64>,
}

/// A kernel stack (`THREAD_SIZE`) is 16 KiB on x86-64 and arm64.
const KERNEL_STACK: u64 = 16 << 10;
/// How many holders are named a kind.
const NAMED: usize = 5;

/// Everything beyond RSS of a process; what costs a walk over descriptors only at full depth.
pub(crate) fn look(scene: &Scene, notes: &mut Vec<String>) -> Result<(Vec<Beyond>, Files), Error> {
    let status = scene.process.status()?;
    let held = if scene.depth.beyond { descriptors::held(&scene.process) } else { None };
    let sockets = held.as_ref().and_then(|held| queued(&scene.process, held, notes));
    let found = held.map(|held| Files { held: held.files, mapped: resident_by_file(scene) });
    let swap = scene.reading.entries.iter().map(|entry| entry.usage.swap).sum::<u64>();
    let plain = |kind, bytes| Beyond { kind, bytes, items: Vec::new(), mapped_bytes: None };
    let files = |kind| {
        let (items, held) = found.as_ref().map(|files| unmapped(files, kind)).unzip();
        let bytes = items.as_ref().map(|all: &Vec<Item>| all.iter().map(|item| item.bytes).sum());
        let mapped_bytes = held.zip(bytes).map(|(held, bytes): (u64, u64)| held - bytes);
        let mut items = items.unwrap_or_default();
        items.retain(|item| item.bytes > 0);
        items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
        items.truncate(NAMED);
        Beyond { kind, bytes, items, mapped_bytes }
    };
    let rows = vec![
        files(Kind::MemfdUnmapped),
        files(Kind::TmpfsUnmapped),
        plain(Kind::Swap, Some(swap.max(status.vm_swap))),
        plain(Kind::PageTables, Some(status.vm_pte)),
        plain(Kind::KernelStacks, Some(u64::from(status.threads) * KERNEL_STACK)),
        Beyond { mapped_bytes: sockets.map(|_| 0), ..plain(Kind::Sockets, sockets) },
        plain(Kind::Pinned, Some(status.vm_pin + status.vm_lck)),
        plain(Kind::Hugetlb, Some(status.hugetlb)),
    ];
    Ok((rows, found.unwrap_or_default()))
}

/// Bytes by kind.
type Sums = Vec<(Kind, u64)>;

/// The memory files that a process holds by descriptor, mapped or not, and the bytes of all of them and of
/// what waits in its sockets; `None` where its descriptors may not be seen.
pub(crate) fn files_held(process: &Process) -> Option<(Vec<HeldFile>, Sums)> {
    let held = descriptors::held(process)?;
    let sockets = queued(process, &held, &mut Vec::new());
    let files =
        [Kind::MemfdUnmapped, Kind::TmpfsUnmapped].map(|kind| (kind, sum(&held.files, kind)));
    let sums = files.into_iter().chain(sockets.map(|bytes| (Kind::Sockets, bytes))).collect();
    Some((held.files, sums))
}

/// What waits in its sockets and pipes; `None` where neither can be asked.
fn queued(process: &Process, held: &descriptors::Held, notes: &mut Vec<String>) -> Option<u64> {
    let sockets = sockets::queued(process, &held.sockets, notes);
    let pipes = pipes::waiting(process, &held.pipes);
    if pipes.is_none() {
        notes.push(
            "what waits in its pipes cannot be seen: its descriptors may not be copied".into(),
        );
    }
    sockets.into_iter().chain(pipes).reduce(|a, b| a + b)
}

fn sum(files: &[HeldFile], kind: Kind) -> u64 {
    files.iter().filter(|file| file.kind == kind).map(|file| file.bytes).sum()
}

/// Resident bytes by inode of memory files. The device number of a memfd is not that of its
/// mapping's line on every kernel, the inode is.
fn resident_by_file(scene: &Scene) -> HashMap<u64, u64> {
    let mut resident = HashMap::new();
    for entry in scene.reading.entries.iter().filter(|entry| Map::has_file(&entry.map)) {
        *resident.entry(entry.map.inode).or_insert(0) += entry.usage.rss;
    }
    resident
}

/// What of each file of a kind the process does not map, and the bytes of all of them.
fn unmapped(files: &Files, kind: Kind) -> (Vec<Item>, u64) {
    let of_kind = files.held.iter().filter(|file| file.kind == kind);
    let items = of_kind.map(|file| Item {
        bytes: file.unmapped(&files.mapped),
        name: file.name.clone(),
        descriptors: file.descriptors.clone(),
    });
    (items.collect(), sum(&files.held, kind))
}
