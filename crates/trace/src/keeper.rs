//! Probes go with us, also when we are killed.
//!
//! Who is killed by SIGKILL closes its files while the signal is still pending, and then the kernel
//! cannot write to the target any more: the breakpoint of a probe stays in its text (Linux 6.18,
//! `uprobe_unregister`, which gives up where a fatal signal is pending). So a small process shares our
//! table of open files, outlives us, and closes them by an ordinary end. Where the signal comes in the
//! midst of switching a probe on or off, the kernel gives up all the same: that would need the
//! switching to be done elsewhere.

use std::sync::Once;

/// Starts it, once. A refusal only leaves the kernel's own way.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let us = i64::from(std::process::id());
        // SAFETY: a copy of this thread alone, in memory of its own, that shares the table of open
        // files. It makes system calls until its end: no allocation, no lock, no return.
        unsafe {
            if libc::syscall(libc::SYS_clone, libc::CLONE_FILES, 0, 0, 0, 0) == 0 {
                // Not of the group or the terminal's session that is being killed.
                libc::syscall(libc::SYS_setsid);
                let parent = libc::syscall(libc::SYS_pidfd_open, us, 0);
                let mut end = libc::pollfd { fd: parent as i32, events: libc::POLLIN, revents: 0 };
                while parent >= 0 && end.revents == 0 {
                    libc::syscall(libc::SYS_poll, &raw mut end, 1, -1);
                }
                libc::syscall(libc::SYS_exit_group, 0);
            }
        }
    });
}
