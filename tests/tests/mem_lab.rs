//! `plumb mem` on the programs of the lab: every layer within 2 % of the program's own truth.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use plumb_tests::lab::{self, Program};
use plumb_tests::ledger::{self, faults};

/// Every program of the lab that stands still without a rate. The other ones are named, so that a
/// new program is not forgotten: a library, churns that cannot know what malloc keeps of them, and one
/// that never stands still.
const MOVING: [&str; 4] = ["munmap_preload", "malloc_churn", "malloc_sampled", "maps_moving"];

fn programs() -> Vec<String> {
    let built = lab::build();
    let sources = std::fs::read_dir(lab::folder()).expect("lab/");
    let mut names: BTreeSet<String> = sources
        .filter_map(|entry| {
            let path: PathBuf = entry.ok()?.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            let native = matches!(path.extension()?.to_str()?, "c" | "rs");
            (native && !MOVING.contains(&name.as_str())).then_some(name)
        })
        .collect();
    for more in ["malloc_in_use.static", "malloc_in_use.stripped"] {
        assert!(built.join(more).exists(), "{more} is not built");
        names.insert(more.to_owned());
    }
    names.into_iter().collect()
}

#[test]
fn layers_are_the_programs_own_truth() {
    let names = Mutex::new(programs());
    let wrong = Mutex::new(Vec::new());
    let next = || names.lock().unwrap().pop();
    assert!(names.lock().unwrap().len() > 30);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(name) = next() {
                    let program = Program::named(&name, &[]);
                    let found = faults(&program, &ledger::of(program.pid()), None);
                    if !found.is_empty() {
                        wrong.lock().unwrap().push(format!("{name}: {}", found.join("; ")));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_preloaded_library_keeps_mapped_is_not_the_heaps() {
    let preload = lab::build().join("munmap_preload.so");
    let mut command = Command::new(lab::build().join("mmap_freed"));
    command.env("LD_PRELOAD", preload);
    let program = Program::start(command);
    let seen = ledger::of(program.pid());
    assert_eq!(faults(&program, &seen, None), Vec::<String>::new());
    assert!(seen.layer("anonymous") > 40 << 20, "{seen:?}");
}

#[test]
fn layers_hold_whatever_malloc_was_told() {
    for tunables in ["hugetlb=2", "tcache_count=0", "mmap_threshold=1073741824", "perturb=85"] {
        for name in ["malloc_in_use", "malloc_arenas", "malloc_small_freed"] {
            let tunables = format!("glibc.malloc.{tunables}");
            let program = Program::named(name, &[("GLIBC_TUNABLES", &tunables)]);
            let found = faults(&program, &ledger::of(program.pid()), None);
            assert_eq!(found, Vec::<String>::new(), "{name} {tunables}");
        }
    }
}

#[test]
fn layers_hold_at_other_sizes() {
    for (name, bytes) in [("malloc_in_use", "200000000"), ("malloc_mmapped", "9000000")] {
        let program = Program::named(name, &[("LAB_BYTES", bytes), ("LAB_SEED", "7")]);
        assert_eq!(
            faults(&program, &ledger::of(program.pid()), None),
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn maps_that_change_while_they_are_read_give_no_wrong_total() {
    let program = Program::named("maps_moving", &[]);
    let truth = |layer: &str| program.truth["layers"][layer].as_i64().unwrap();
    let (heap, anonymous) = (truth("heap_in_use"), truth("anonymous"));
    // What comes and goes: chunks of one thread, one mapping, the stacks of two threads.
    let moving = 16 << 20;
    for round in 0..30 {
        let seen = ledger::of(program.pid());
        assert_eq!(seen.residual_fault(), None, "round {round}");
        let all = seen.layer("heap_in_use") + seen.layer("heap_retained") + seen.layer("heap");
        for (what, found, steady) in [
            ("rss", seen.rss(), heap + anonymous),
            ("heap", all, heap),
            ("anonymous", seen.layer("anonymous"), anonymous),
        ] {
            let sound = steady..steady + moving;
            assert!(sound.contains(&found), "round {round}: {what} {found}: {:?}", seen.layers);
        }
        assert!(seen.layer("stacks") < 2 << 20, "round {round}: {:?}", seen.layers);
    }
}
