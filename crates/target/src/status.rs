//! `/proc/PID/stat` and `/proc/PID/status`: state, family, cheap counters of memory.

use crate::Error;
use crate::maps::decimal;

/// What we use of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// One letter: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    pub state: char,
    /// The parent's pid.
    pub parent: u32,
    /// Whether it is a thread of the kernel.
    pub kernel_thread: bool,
    /// Page faults of all its threads for which nothing was read.
    pub minor_faults: u64,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// The lowest address of the main stack's top (`startstack`), 0 where hidden.
    pub stack_start: u64,
}

/// `PF_KTHREAD` of the kernel's linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    /// Parses the line; the name may hold spaces, parentheses and newlines.
    ///
    /// # Errors
    /// A line that is not of the kernel's form.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::fields(text).ok_or_else(|| Error::parse("stat", text))
    }

    fn fields(text: &[u8]) -> Option<Self> {
        let after_name = text.iter().rposition(|&b| b == b')')?;
        let fields: Vec<&[u8]> = text[after_name + 1..]
            .split(u8::is_ascii_whitespace)
            .filter(|f| !f.is_empty())
            .collect();
        // Numbered as in proc(5), where the state is field 3.
        let number = |field: usize| decimal(fields.get(field - 3)?);
        Some(Self {
            state: char::from(*fields.first()?.first()?),
            parent: u32::try_from(number(4)?).ok()?,
            kernel_thread: number(9)? & KERNEL_THREAD != 0,
            minor_faults: number(10).unwrap_or(0),
            start: number(22)?,
            stack_start: number(28).unwrap_or(0),
        })
    }
}

/// What we use of `/proc/PID/status`. Sizes are bytes; what a kernel does not say is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The process that a thread belongs to.
    pub tgid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Number of threads.
    pub threads: u32,
    /// The kernel's resident counter: approximate on some kernels.
    pub vm_rss: u64,
    /// The anonymous part of it.
    pub rss_anon: u64,
    /// The file part of it.
    pub rss_file: u64,
    /// The shared-memory part of it.
    pub rss_shmem: u64,
    /// Page tables.
    pub vm_pte: u64,
    /// Swapped out.
    pub vm_swap: u64,
    /// Locked (`mlock`).
    pub vm_lck: u64,
    /// Pinned by drivers (RDMA, `io_uring` buffers).
    pub vm_pin: u64,
    /// Huge pages of hugetlbfs.
    pub hugetlb: u64,
    /// The process that traces it, 0 for none.
    pub tracer: u32,
    /// Its pids from the outermost to its own pid namespace.
    pub namespace_pids: Vec<u32>,
    /// Which calls a seccomp filter is asked about: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
}

impl Status {
    /// Parses the file; lines that are not known are passed over.
    pub fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|&b| b == b'\n') {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let mut words =
                line[colon + 1..].split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
            if &line[..colon] == b"NSpid" {
                status.namespace_pids =
                    words.filter_map(|w| u32::try_from(decimal(w)?).ok()).collect();
                continue;
            }
            let Some(value) = words.next().and_then(decimal) else { continue };
            let small = u32::try_from(value).unwrap_or(u32::MAX);
            let bytes = value.saturating_mul(1024);
            match &line[..colon] {
                b"Tgid" => status.tgid = small,
                b"Uid" => status.uid = words.next().and_then(decimal).map_or(0, |v| v as u32),
                b"Threads" => status.threads = small,
                b"TracerPid" => status.tracer = small,
                b"Seccomp" => status.seccomp = small,
                b"VmRSS" => status.vm_rss = bytes,
                b"RssAnon" => status.rss_anon = bytes,
                b"RssFile" => status.rss_file = bytes,
                b"RssShmem" => status.rss_shmem = bytes,
                b"VmPTE" => status.vm_pte = bytes,
                b"VmSwap" => status.vm_swap = bytes,
                b"VmLck" => status.vm_lck = bytes,
                b"VmPin" => status.vm_pin = bytes,
                b"HugetlbPages" => status.hugetlb = bytes,
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"7 (a) b (c\n) R 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 3 4 5 6 7 140737488347136 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), ('R', 1, 98_765));
        assert_eq!((stat.minor_faults, stat.stack_start), (1, 140_737_488_347_136));
        assert!(!stat.kernel_thread);
        assert!(Stat::parse(b"7 (x").is_err());
    }

    #[test]
    fn counters_are_bytes() {
        let status = Status::parse(b"Name:\tx\nTgid:\t12\nUid:\t0\t5\t0\t0\nNSpid:\t12\t1\nVmRSS:\t    2048 kB\nVmSwap:\t3 kB\n");
        assert_eq!(
            (status.tgid, status.uid, status.vm_rss, status.vm_swap),
            (12, 5, 2 << 20, 3072)
        );
        assert_eq!(status.namespace_pids, [12, 1]);
    }
}
