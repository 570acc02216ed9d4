//! What the machine, or the part of it that is ours, can give.

use plumb_ledger::watch::{Limit, nearest_limit};
use plumb_target::Process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Error;

/// The CPUs that this thread may run on; empty where the kernel does not tell.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Keeps this thread, and all that it will start, off the engine's CPUs: HTTP, text and pulls must not
/// take them from a step. The engine's own threads pin themselves there. Where there are no other CPUs
/// everybody shares them. For a program's first thread, before it starts another.
///
/// # Errors
/// A CPU of `engine` is none of this process's.
pub fn leave_to_engine(engine: &[usize]) -> Result<(), Error> {
    let ours = cpus();
    match engine.iter().find(|cpu| !ours.contains(cpu)) {
        Some(cpu) if !ours.is_empty() => {
            return Err(Error::Options(format!(
                "--cpus {cpu}: this process may run on the CPUs {ours:?} only"
            )));
        }
        _ => {}
    }
    let mut others = CpuSet::new();
    ours.iter().filter(|cpu| !engine.contains(cpu)).for_each(|&cpu| others.set(cpu));
    if !engine.is_empty()
        && others.count() > 0
        && let Err(error) = sched_setaffinity(None, &others)
    {
        tracing::debug!(%error, "the engine shares its CPUs with the rest of the instance");
    }
    Ok(())
}

/// What memory runs into first: the machine, a cgroup, a limit of our own.
pub fn memory() -> Option<Limit> {
    nearest_limit(&Process::own())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_engine_keeps_off_its_cpus() {
        // A thread's own affinity: other tests keep theirs.
        let thread = std::thread::spawn(|| {
            let ours = cpus();
            leave_to_engine(&[]).unwrap();
            leave_to_engine(&ours).unwrap();
            assert_eq!(cpus(), ours, "there are no others");
            let none = ours.iter().max().unwrap() + 1;
            let refused = leave_to_engine(&[ours[0], none]).unwrap_err().to_string();
            assert!(refused.contains(&format!("--cpus {none}")), "{refused}");
            leave_to_engine(&ours[..1]).unwrap();
            assert_eq!(cpus(), if ours.len() > 1 { &ours[1..] } else { &ours[..] });
        });
        thread.join().unwrap();
    }
}
