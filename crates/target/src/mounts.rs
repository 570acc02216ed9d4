//! Which file systems a process sees: what is memory although it has a path.

use std::collections::HashSet;

use crate::Process;
use crate::maps::decimal;

/// The devices of memory file systems in a process's mount namespace.
#[derive(Debug, Default, Clone)]
pub struct MemoryMounts {
    tmpfs: HashSet<(u32, u32)>,
}

impl MemoryMounts {
    /// Reads `/proc/PID/mountinfo`; nothing where it cannot be read.
    pub fn read(process: &Process) -> Self {
        Self::parse(&process.read("mountinfo").unwrap_or_default())
    }

    /// Parses the text of `mountinfo`: `id parent major:minor root point options… - type …`.
    pub fn parse(text: &[u8]) -> Self {
        let mut tmpfs = HashSet::new();
        for line in text.split(|&b| b == b'\n') {
            let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
            let kind = fields.iter().position(|f| *f == b"-").and_then(|at| fields.get(at + 1));
            if !matches!(kind, Some(&(b"tmpfs" | b"devtmpfs" | b"ramfs"))) {
                continue;
            }
            let device = fields.get(2).and_then(|device| {
                let colon = device.iter().position(|&b| b == b':')?;
                let number = |text| u32::try_from(decimal(text)?).ok();
                Some((number(&device[..colon])?, number(&device[colon + 1..])?))
            });
            tmpfs.extend(device);
        }
        Self { tmpfs }
    }

    /// Whether files of that device live in memory.
    pub fn is_memory(&self, device: (u32, u32)) -> bool {
        self.tmpfs.contains(&device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tmpfs_among_mounts() {
        let mounts = MemoryMounts::parse(
            b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
              25 22 0:21 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw\nnonsense\n",
        );
        assert!(mounts.is_memory((0, 21)) && !mounts.is_memory((254, 0)));
    }
}
