//! What the machine, or the part of it that is ours, can give.

use plumb_ledger::watch::{Limit, nearest_limit};
use plumb_target::Process;
use rustix::thread::{CpuSet, sched_getaffinity};

/// The CPUs that this process may run on; empty where the kernel does not tell.
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// What memory runs into first: the machine, a cgroup, a limit of our own.
pub fn memory() -> Option<Limit> {
    nearest_limit(&Process::own())
}
