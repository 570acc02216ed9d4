//! `plumb hunt` on heaps beside glibc's: who keeps memory is named, and not who churns, nor the
//! allocator's own functions. Needs root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use plumb_tests::lab;
use plumb_tests::process::plumb;
use serde_json::Value;

/// A program that ends with this value.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Hunts a program of the lab that is running; the report.
fn hunt(program: PathBuf, preload: Option<&str>) -> Value {
    let mut command = Command::new(program);
    command.env("LAB_RATE", "4000000").env("LAB_SECONDS", "120");
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let target = Target(command.spawn().expect("starts"));
    let pid = target.0.id().to_string();
    let out = Command::new(plumb())
        .args(["hunt", &pid, "--for", "12s", "--floor", "heap", "--json"])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("a report")
}

/// The first culprit's own function is this one, and it explains most of the growth.
fn assert_keeps(report: &Value, function: &str, what: &str) {
    let layer = report["verdict"]["layer"].as_str().unwrap_or("none");
    assert!(layer.starts_with("heap"), "{what}: {layer}");
    let first = &report["culprits"][0];
    let frames = first["frames"].as_array().expect("a culprit");
    let named =
        frames.iter().any(|f| f["function"].as_str().is_some_and(|f| f.ends_with(function)));
    assert!(named, "{what}: {:#}", report["culprits"]);
    assert!(first["share"].as_f64().is_some_and(|share| share > 0.6), "{what}: {first:#}");
    assert!(first["age_s"].as_f64().is_some_and(|age| age > 2.0), "{what}: {first:#}");
}

#[test]
fn who_keeps_memory_is_named_in_every_allocator() {
    let build = lab::make("build/malloc_churn.musl");
    lab::build();
    let preloads = ["libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc.so.4"];
    thread::scope(|scope| {
        let churn = preloads.map(|library| {
            let program = build.join("malloc_churn");
            (library, scope.spawn(move || hunt(program, Some(library))))
        });
        let musl = build.join("malloc_churn.musl");
        let musl = scope.spawn(move || hunt(musl, None));
        for (library, hunt) in churn {
            assert_keeps(&hunt.join().expect("hunted"), "keep_session", library);
        }
        assert_keeps(&musl.join().expect("hunted"), "keep_session", "musl");
    });
}
