//! Ordinary programs: never a false alarm, also while they start.
#![forbid(unsafe_code)]

mod common;

use std::process::Command;

use common::{Running, lab};
use plumb_hooks::Hooks;
use plumb_target::Process;

fn assert_clean(hooks: &Hooks, program: &str) {
    assert_eq!(hooks.patched, [], "{program}");
    assert_eq!(hooks.interposed, [], "{program}");
    assert_eq!(hooks.unread, [], "{program}");
    assert!(hooks.is_clean() && hooks.sentence().starts_with("Nothing"), "{program}");
}

/// Each once from its first instruction on, and once when it has said that it runs.
#[test]
fn ordinary_programs_are_clean() {
    let say = "echo ready; cat >/dev/null; :";
    let programs: &[&[&str]] = &[
        &["bash", "-c", say],
        &["sh", "-c", say],
        &["python3", "-c", "import ctypes, ssl, sqlite3; print('ready', flush=True); input()"],
        &["perl", "-e", "use POSIX; $| = 1; print qq(ready\n); <STDIN>"],
        &["node", "-e", "console.log('ready'); process.stdin.resume()"],
        &["java", "--version"],
        &["awk", "BEGIN { print \"ready\"; fflush(); getline }"],
        &["sed", "-u", "1i ready"],
    ];
    for arguments in programs {
        let program = arguments[0];
        let running = Running::start(Command::new(program).args(&arguments[1..]));
        for _ in 0..20 {
            // One that ended meanwhile has nothing to show.
            if let Ok(hooks) = Process::open(running.0.id()).and_then(|p| plumb_hooks::scan(&p)) {
                assert_clean(&hooks, program);
            }
        }
        // sed says its line only when it is given one; java ends by itself.
        if !["sed", "java"].contains(&program) {
            assert_clean(&running.ready().scan(), program);
        }
    }
}

#[test]
fn programs_of_the_lab_are_clean() {
    for name in ["malloc_in_use", "malloc_in_use.static", "malloc_in_use.musl", "jit_pages"] {
        assert_clean(&Running::start(&mut Command::new(lab(name))).ready().scan(), name);
    }
}

#[test]
fn we_are_clean() {
    assert_clean(&plumb_hooks::scan(&Process::own()).expect("a scan"), "this test");
}
