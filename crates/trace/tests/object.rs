//! The checked-in BPF object is its source, and its layouts are ours.

use std::path::Path;
use std::process::Command;

use plumb_trace::events::{EVENT_BYTES, RECORD_MAX};
use plumb_trace::probe::Probe;

fn bpf() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf")
}

#[test]
fn the_object_equals_its_source() {
    let made = Command::new("make").arg("-sC").arg(bpf()).arg("check").output().expect("make runs");
    assert!(
        made.status.success(),
        "{}{}\nclang-14 and llvm-14 are needed: run `make test-packages`",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );
}

#[test]
fn layouts_are_those_of_the_header() {
    let sizes = format!(
        "#include \"layout.h\"\n\
         _Static_assert(sizeof(struct event) == {EVENT_BYTES}, \"event\");\n\
         _Static_assert(sizeof(struct record) == {RECORD_MAX}, \"record\");\n\
         _Static_assert(sizeof(struct python_layout) == {}, \"python_layout\");\n\
         _Static_assert(sizeof(struct config) == {}, \"config\");\n",
        size_of::<plumb_trace::probe::PythonLayout>(),
        size_of::<plumb_trace::probe::Config>(),
    );
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("sizes.c");
    std::fs::write(&file, sizes).expect("written");
    let made = Command::new("clang-14")
        .args(["-target", "bpf", "-fsyntax-only", "-I"])
        .arg(bpf())
        .arg(&file)
        .output()
        .expect("clang-14 is installed: run `make test-packages`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A kernel that refuses one of them leaves probes that go off one after the other, and says nothing.
#[test]
fn the_programs_for_many_functions_load_where_the_kernel_has_such() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let mut numbers = release.split('.').map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut probe = Probe::attach().expect("the programs load");
    probe.load_bursts().expect("these too");
    assert!(probe.multi().is_some());
}
