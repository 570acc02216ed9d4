//! The threads of a process, and where their stacks are.

use std::fs;

use crate::maps::hex;
use crate::{Error, Process};

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// The kernel's short name.
    pub name: String,
    /// Its stack pointer, where it waits in the kernel and we may ask; `None` while it runs.
    pub stack_pointer: Option<u64>,
}

/// The threads of a process, the main one first. Those that end meanwhile are left out.
///
/// # Errors
/// Vanished or denied.
pub fn threads(process: &Process) -> Result<Vec<Thread>, Error> {
    let path = process.path("task");
    let entries = fs::read_dir(&path).map_err(|e| Error::of(process.pid(), &path, e))?;
    let mut tids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable_by_key(|&tid| (tid != process.pid(), tid));
    Ok(tids.into_iter().filter_map(|tid| thread(process, tid)).collect())
}

fn thread(process: &Process, tid: u32) -> Option<Thread> {
    let name = process.read(&format!("task/{tid}/comm")).ok()?;
    let syscall = process.read(&format!("task/{tid}/syscall")).unwrap_or_default();
    Some(Thread {
        tid,
        name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned(),
        stack_pointer: stack_pointer(&syscall),
    })
}

/// The last two fields of `/proc/PID/task/TID/syscall` are the stack and instruction pointers.
fn stack_pointer(syscall: &[u8]) -> Option<u64> {
    let mut fields = syscall.trim_ascii_end().rsplit(|&b| b == b' ');
    let _instruction = fields.next()?;
    hex(fields.next()?.strip_prefix(b"0x")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_stack_pointer_of_a_waiting_thread_only() {
        assert_eq!(
            stack_pointer(b"0 0x3 0x7f 0x2 0x7f 0xff 0x0 0x7ffcb3193c08 0x7f39101202ad\n"),
            Some(0x7ffc_b319_3c08)
        );
        assert_eq!(stack_pointer(b"-1 0x7ffcb3193c08 0x7f39101202ad\n"), Some(0x7ffc_b319_3c08));
        assert_eq!(stack_pointer(b"running\n"), None);
        assert_eq!(stack_pointer(b""), None);
    }

    #[test]
    fn lists_a_waiting_thread_with_its_stack() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::Builder::new()
            .name("waits".into())
            .spawn(move || wait.recv().is_err())
            .unwrap();
        let own = Process::own();
        let found = loop {
            let all = threads(&own).unwrap();
            assert_eq!(all[0].tid, own.pid());
            let waiting = all.into_iter().find(|t| t.name == "waits" && t.stack_pointer.is_some());
            if let Some(thread) = waiting {
                break thread;
            }
            std::thread::yield_now();
        };
        let maps = crate::maps::read(&own).unwrap();
        let stack = crate::maps::find(&maps, found.stack_pointer.unwrap()).unwrap();
        assert!(stack.is_anonymous() && stack.permissions.write);
        drop(stop);
        assert!(worker.join().unwrap());
    }
}
