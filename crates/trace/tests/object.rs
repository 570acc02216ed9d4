//! The checked-in BPF object is its source, and its layouts are ours.

use std::path::Path;
use std::process::Command;

use plumb_target::Process;
use plumb_trace::burst::{Bursts, Of};
use plumb_trace::events::{self, EVENT_BYTES, Kind, RECORD_MAX};
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

/// Fewer than fit into half the ring with a copy of the stack each.
const CALLS: usize = 100;

/// How many of our own allocations are told of while the probes are on.
fn seen(probe: &mut Probe) -> usize {
    const BYTES: usize = 54_321;
    let own = Process::own();
    probe.watch(own.pid(), 0, false).expect("we are watched");
    let mut bursts = Bursts::new(&own, Of::Heap, probe).expect("our malloc is known");
    bursts.on(probe).expect("the probes are on");
    for _ in 0..CALLS {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(BYTES)));
    }
    bursts.wait_off(probe);
    let mut seen = 0;
    probe.drain(usize::MAX, |record| {
        let Some((event, _)) = events::parse(record) else { return };
        seen += usize::from(event.kind == Kind::Alloc && event.args[0] >= BYTES as u64);
    });
    probe.forget(own.pid());
    seen
}

/// A kernel that refuses links of many functions has probes that go off one after the other.
#[test]
fn allocations_are_seen_by_probes_together_and_apart() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let mut numbers = release.split('.').map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut probe = Probe::attach().expect("the programs load");
    let together = probe.bursts().expect("these too").together();
    assert!(together || version < (6, 10), "{version:?}");
    assert!(seen(&mut probe) >= CALLS);
    probe.keep_apart().expect("and these");
    assert!(seen(&mut probe) >= CALLS);
}
