//! `/proc/PID/smaps_rollup`: what private memory comes to in all. The kernel looks at every page for it.

use crate::{Error, Process};

/// Sums over all mappings, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollup {
    /// Private memory that is resident.
    pub anonymous: u64,
    /// Pages that were written to and that nobody else holds.
    pub private_dirty: u64,
    /// Its share of `anonymous`, with pages that others hold too since a fork divided among all; `None` on
    /// kernels that do not tell.
    pub share: Option<u64>,
}

impl Rollup {
    /// Of a process.
    ///
    /// # Errors
    /// Vanished, denied, or what the system answered.
    pub fn read(process: &Process) -> Result<Self, Error> {
        Ok(Self::parse(&process.read("smaps_rollup")?))
    }

    fn parse(text: &[u8]) -> Self {
        let bytes = |name: &[u8]| {
            let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name))?;
            let kib = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
            Some(crate::maps::decimal(kib)?.saturating_mul(1024))
        };
        Self {
            anonymous: bytes(b"Anonymous:").unwrap_or(0),
            private_dirty: bytes(b"Private_Dirty:").unwrap_or(0),
            share: bytes(b"Pss_Anon:"),
        }
    }

    /// What of private memory another process has the same pages of, since a fork.
    pub fn shared_since_fork(&self) -> u64 {
        self.anonymous.saturating_sub(self.private_dirty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_told_by_their_names() {
        let text = b"7ff0-7fff ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss_Anon: 20 kB\n\
            Private_Dirty:  12 kB\nAnonymous:  32 kB\n";
        let rollup = Rollup::parse(text);
        let sums = (rollup.anonymous, rollup.private_dirty, rollup.share);
        assert_eq!(sums, (32 << 10, 12 << 10, Some(20 << 10)));
        assert_eq!(rollup.shared_since_fork(), 20 << 10);
        assert_eq!(Rollup::parse(b"Anonymous: 8 kB\n").share, None);
    }
}
