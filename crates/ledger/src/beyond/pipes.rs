//! What waits in pipes. No file lists it; the pipe itself tells who has it open.
//!
//! The target's own descriptor is copied (pidfd_getfd(2)): the open file stays the same, so nothing is opened
//! anew, no reader or writer appears that was none, and a pipe that ends meanwhile ends microseconds later.

use plumb_target::Process;
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Bytes that wait in the pipes that these descriptors of a process read; `None` where we may not ask.
pub(super) fn waiting(process: &Process, descriptors: &[u32]) -> Option<u64> {
    if descriptors.is_empty() {
        return Some(0);
    }
    let pid = Pid::from_raw(i32::try_from(process.pid()).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Another process may have got the pid before it was opened.
    if !process.is_alive() {
        return None;
    }
    let mut sum = 0;
    for &descriptor in descriptors {
        match pidfd_getfd(&pidfd, i32::try_from(descriptor).ok()?, PidfdGetfdFlags::empty()) {
            Ok(pipe) => sum += ioctl_fionread(&pipe).unwrap_or(0),
            Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => return None,
            // It was closed meanwhile.
            Err(_) => {}
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_was_written_and_not_read_waits_and_the_pipe_ends_as_it_would() {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(&[1; 50_000]).expect("written");
        let descriptor = [u32::try_from(reader.as_raw_fd()).expect("a descriptor")];
        assert_eq!(waiting(&Process::own(), &descriptor), Some(50_000));
        drop(writer);
        let mut all = Vec::new();
        assert_eq!(reader.read_to_end(&mut all).expect("its end"), 50_000);
        assert_eq!(waiting(&Process::own(), &descriptor), Some(0));
        let closed = [1_000_000];
        assert_eq!(waiting(&Process::own(), &closed), Some(0));
    }
}
