//! Debuggers and uprobes are tracers, and never patches. Needs root.
#![forbid(unsafe_code)]

mod common;

use std::io::Write;
use std::process::Command;

use common::{Running, tracers};
use plumb_hooks::TracerKind;
use plumb_target::{Process, images, maps};

/// Opens a uprobe on a file for one process by `perf_event_open` (number 298), whose `attr` has
/// type and size first, the path at byte 56 and the offset at 64.
const PROBE: &str = "
import ctypes, struct, sys
path, offset, pid = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])
kind = int(open('/sys/bus/event_source/devices/uprobe/type').read())
name = ctypes.create_string_buffer(path)
attr = bytearray(128)
struct.pack_into('<II', attr, 0, kind, 128)
struct.pack_into('<QQ', attr, 56, ctypes.addressof(name), offset)
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(298, (ctypes.c_char * 128).from_buffer(attr), pid, -1, -1, 0)
print('attached' if fd >= 0 else 'errno %d (needs root)' % ctypes.get_errno(), flush=True)
input()
assert fd >= 0
";

#[test]
fn a_uprobe_is_a_tracer_and_leaves_nothing() {
    let target = Running::start(Command::new("cat").arg("-u"));
    let process = target.process();
    let libc = loop {
        let all = images(&process, &maps::read(&process).expect("maps"));
        if let Some(libc) = all.into_iter().find(|i| i.name().starts_with("libc.so")) {
            break libc;
        }
    };
    let malloc = libc.symbols().expect("symbols").named("malloc").expect("malloc").address;
    let offset = libc.elf.offset_of(malloc).expect("in the file").to_string();
    let pid = process.pid().to_string();
    let path = libc.path.to_string_lossy().into_owned();
    let probe = Command::new("python3").args(["-c", PROBE, &path, &offset, &pid]).spawn_ready();

    let hooks = target.scan();
    assert_eq!((hooks.patched.len(), hooks.interposed.len()), (0, 0), "{hooks:#?}");
    let [tracer] = tracers(&hooks)[..] else { panic!("{hooks:#?}") };
    assert_eq!((tracer.kind, tracer.symbol.as_deref()), (TracerKind::Uprobe, Some("malloc")));
    assert_eq!((tracer.module.as_ref(), tracer.address), (Some(&path), Some(libc.bias + malloc)));
    assert!(hooks.text_differs(&(libc.bias + malloc..libc.bias + malloc + 1)));

    drop(probe);
    // The kernel takes the probe off when its file is closed for good, soon after the exit.
    while !target.scan().tracers.iter().all(|t| t.kind != TracerKind::Uprobe) {
        std::thread::yield_now();
    }
    assert!(target.scan().is_clean());
}

trait SpawnReady {
    fn spawn_ready(&mut self) -> Running;
}

impl SpawnReady for Command {
    fn spawn_ready(&mut self) -> Running {
        Running::start(self).ready()
    }
}

#[test]
fn a_debugger_is_named() {
    // strace is not everywhere, so a Python program traces: PTRACE_SEIZE (0x4206).
    let target = Running::start(&mut Command::new("cat"));
    let trace = "
import ctypes, sys
failed = ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0)
print('failed' if failed else 'seized', flush=True)
input()
";
    let pid = target.process().pid().to_string();
    let mut tracer = Command::new("python3").args(["-c", trace, &pid]).spawn_ready();
    let hooks = target.scan();
    let [found] = tracers(&hooks)[..] else { panic!("{hooks:#?}") };
    assert_eq!((found.kind, found.pid), (TracerKind::Ptrace, Some(tracer.0.id())));
    assert!(found.name.as_deref().is_some_and(|name| name.starts_with("python")), "{found:?}");
    assert!(hooks.is_clean());
    tracer.0.stdin.take().expect("piped").write_all(b"\n").expect("tells it to end");
}

#[test]
fn what_cannot_be_scanned_says_so_in_one_line() {
    // It ends when its standard input does, so that it cannot end before it is looked at.
    let mut ended = Running::start(&mut Command::new("cat"));
    let process = ended.process();
    drop(ended.0.stdin.take());
    ended.0.wait().expect("ends");
    let error = plumb_hooks::scan(&process).expect_err("it is gone").to_string();
    assert!(error.contains("does not exist, or has just ended"), "{error}");
    let error = Process::open(2).and_then(|p| plumb_hooks::scan(&p)).map(|_| ());
    if let Err(error) = error {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
