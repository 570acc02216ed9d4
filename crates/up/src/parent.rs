//! A part ends when its parent does, however the parent ended.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The environment variable by which a part knows whose it is: the parent's process id.
pub(crate) const PARENT: &str = "PLUMB_PARENT";

/// Asks the kernel for a SIGTERM when the parent that `plumb up` named is gone.
///
/// Does nothing in a process that `plumb up` did not start. Returns false where the parent was
/// already gone, so that the caller can leave at once.
pub fn follow_parent() -> bool {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse().ok()) else {
        return true;
    };
    // Without PR_SET_PDEATHSIG (no Linux is that old) the part just outlives a killed parent.
    let _unsupported = set_parent_process_death_signal(Some(Signal::TERM));
    getppid() == Pid::from_raw(parent)
}
