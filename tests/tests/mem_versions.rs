//! `plumb mem` on other versions of glibc and CPython, in the Debian systems of `scripts/chroots`.

use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_tests::lab::{self, Program};
use plumb_tests::ledger::{self, faults};

/// Live and freed chunks of every kind: small, of threads, cached, mapped, in pieces, beside raw `brk`.
const NATIVE: [&str; 7] = [
    "malloc_in_use",
    "malloc_arenas",
    "malloc_small_freed",
    "malloc_mmapped",
    "malloc_spread",
    "brk_raw",
    "stack_cache",
];

fn systems() -> Vec<PathBuf> {
    let folder = lab::folder().join("../.cache/chroots");
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).filter(|path| path.join(".made").exists()).collect()
}

fn inside(system: &Path, program: &str) -> Command {
    let mut command = Command::new("chroot");
    command.arg(system).arg(program);
    command
}

#[test]
fn other_versions_are_split_right() {
    let systems = systems();
    if systems.is_empty() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: no other versions to look at; run scripts/chroots as root");
        return;
    }
    let mut wrong = Vec::new();
    for system in &systems {
        let lab = system.join("lab");
        std::fs::create_dir_all(&lab).expect("a folder in the chroot");
        for entry in std::fs::read_dir(lab::folder()).expect("lab/").flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), lab.join(entry.file_name())).expect("a copy");
            }
        }
        for name in NATIVE {
            let built = format!("/lab/{name}.bin");
            let source = format!("/lab/{name}.c");
            let mut compiler = inside(system, "gcc");
            compiler.args(["-w", "-O1", "-pthread", "-o", &built, &source]);
            assert!(compiler.status().expect("chroot").success(), "{name} in {}", system.display());
            let program = Program::start(inside(system, &built));
            let found = faults(&program, &ledger::of(program.pid()), None);
            if !found.is_empty() {
                wrong.push(format!("{} {name}: {}", system.display(), found.join("; ")));
            }
        }
        for name in ["py_small.py", "py_large.py", "py_freed.py"] {
            let start = |bytes: &str| {
                let mut command = inside(system, "python3");
                command.arg(format!("/lab/{name}")).env("LAB_BYTES", bytes);
                Program::start(command)
            };
            let base = start("64");
            let base = ledger::of(base.pid());
            let program = start("50331648");
            let found = faults(&program, &ledger::of(program.pid()), Some(&base));
            if !found.is_empty() {
                wrong.push(format!("{} {name}: {}", system.display(), found.join("; ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
