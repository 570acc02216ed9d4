//! Files in memory that a process holds by descriptor, and what waits in its sockets, counted between full
//! samples: they move none of its counters.

use std::collections::HashMap;

use plumb_target::Process;

use super::Observation;
use super::pace::cpu;
use crate::beyond::{self, HeldFile};

/// Counting them may take this share of a core; a process with ten thousand sockets is counted rarely.
const SHARE: f64 = 0.001;
/// And this, where what was counted last moved.
const SHARE_MOVING: f64 = 0.003;
/// Shared memory that moved less since the full sample is as it was then.
const STILL: f64 = (64 << 10) as f64;

/// What a full sample saw, and what was told since.
#[derive(Debug, Default)]
pub(super) struct HeldFiles {
    /// By kind, how much of what is held the process maps.
    mapped: Vec<(&'static str, f64)>,
    /// By inode, what was resident of each memfd, and what of it is not mapped.
    resident: HashMap<u64, u64>,
    memfds: Vec<(u64, f64)>,
    /// All shared memory that the process maps.
    shared: f64,
    told: Vec<(&'static str, f64)>,
    counted: f64,
    cost: f64,
    moves: bool,
}

impl HeldFiles {
    /// After a full sample.
    pub fn sampled(&mut self, seen: &Observation) {
        self.resident.clone_from(&seen.files.mapped);
        self.note_memfds(&seen.files.held);
        self.mapped.clone_from(&seen.mapped_files);
        self.shared = seen.shared();
        let unmapped = |&(name, _): &(&'static str, f64)| Some((name, *seen.layers.get(name)?));
        self.told = self.mapped.iter().filter_map(unmapped).collect();
    }

    /// What is not mapped of each memfd, by inode.
    pub fn memfds(&self) -> &[(u64, f64)] {
        &self.memfds
    }

    fn note_memfds(&mut self, held: &[HeldFile]) {
        let memfds = held.iter().filter(|file| file.kind == beyond::Kind::MemfdUnmapped);
        let unmapped = memfds.map(|file| (file.id.1, file.unmapped(&self.resident) as f64));
        self.memfds = unmapped.collect();
    }

    /// The kinds that hold something unmapped, or did when they were told last. None while the mapped
    /// part moves, which only a full sample can see.
    pub fn unmapped(
        &mut self,
        process: &Process,
        now: f64,
        shared: f64,
    ) -> Vec<(&'static str, f64)> {
        let share = if self.moves { SHARE_MOVING } else { SHARE };
        let waits = now - self.counted < self.cost / share;
        if waits || self.mapped.is_empty() || (shared - self.shared).abs() > STILL {
            return Vec::new();
        }
        let begun = cpu();
        let (files, held) = beyond::files_held(process).unwrap_or_default();
        self.note_memfds(&files);
        (self.counted, self.cost) = (now, cpu() - begun);
        let of = |name: &str| held.iter().find(|(kind, _)| kind.name() == name);
        let left = |&(name, mapped): &(&'static str, f64)| {
            Some((name, (of(name)?.1 as f64 - mapped).max(0.0)))
        };
        let left: Vec<_> = self.mapped.iter().filter_map(left).collect();
        let before = std::mem::replace(&mut self.told, left);
        let sum = |told: &[(&str, f64)]| told.iter().map(|(_, bytes)| bytes).sum::<f64>();
        self.moves = (sum(&self.told) - sum(&before)).abs() > STILL;
        let held_before = |name| before.iter().any(|(n, bytes)| *n == name && *bytes > 0.0);
        let told = self.told.iter().copied();
        told.filter(|&(name, bytes)| bytes > 0.0 || held_before(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_held_and_not_mapped_is_told_between_full_samples() {
        let own = Process::own();
        let mut files = HeldFiles::default();
        assert!(files.unmapped(&own, 0.0, 0.0).is_empty(), "nothing is known before a full sample");
        let mapped_files = vec![("memfd_unmapped", 0.0), ("tmpfs_unmapped", 0.0)];
        files.sampled(&Observation { mapped_files, ..Observation::default() });
        assert!(files.unmapped(&own, 1e6, 0.0).is_empty());

        let memfd = rustix::fs::memfd_create("held", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(memfd.try_clone().unwrap()).write_all(&[1; 1 << 20]).unwrap();
        assert!(files.unmapped(&own, 2e6, 1e9).is_empty(), "what is mapped moved, too");
        let held = [("memfd_unmapped", (1 << 20) as f64)];
        assert_eq!(files.unmapped(&own, 3e6, 0.0), held);
        assert!(files.unmapped(&own, 3e6, 0.0).is_empty(), "it is not counted again at once");
        assert_eq!(files.unmapped(&own, 4e6, 0.0), held, "it is still there");
        drop(memfd);
        assert_eq!(files.unmapped(&own, 5e6, 0.0), [("memfd_unmapped", 0.0)]);
        assert!(files.unmapped(&own, 6e6, 0.0).is_empty());
    }

    #[test]
    fn what_waits_in_sockets_is_told_between_full_samples() {
        let mut files = HeldFiles::default();
        let mapped_files = vec![("sockets", 0.0)];
        files.sampled(&Observation { mapped_files, ..Observation::default() });
        let (mut writer, _reader) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.write_all(&[1; 50_000]).unwrap();
        let told = files.unmapped(&Process::own(), 1e6, 0.0);
        assert!(matches!(told[..], [("sockets", bytes)] if bytes >= 50_000.0), "{told:?}");
    }
}
