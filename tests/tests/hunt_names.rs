//! Stripped programs under `plumb hunt`: functions have their names where the file, or a debug file in the
//! target's own root, has them anywhere. Needs root.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use plumb_tests::lab;
use plumb_tests::process::plumb;
use serde_json::Value;

/// What a short hunt of a program that grows says, from its first instruction.
fn hunted(program: &[&str], floor: &str) -> Value {
    let mut hunt = Command::new(plumb());
    hunt.args(["hunt", "--json", "--for", "8s", "--floor", floor, "--"]).args(program);
    hunt.env("LAB_RATE", (8 << 20).to_string()).env("LAB_SECONDS", "20");
    hunt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut hunt = hunt.spawn().expect("it starts");
    let input = hunt.stdin.take();
    let output = hunt.wait_with_output().expect("ours");
    drop(input);
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn assert_named(report: &Value, function: &str) {
    let frames = report["culprits"][0]["frames"].as_array().expect("a culprit");
    assert!(frames.iter().any(|f| f["function"] == function), "no {function}: {report:#}");
}

fn path(file: &Path) -> &str {
    file.to_str().expect("UTF-8")
}

#[test]
fn gos_own_table_names_a_stripped_programs_functions() {
    let program = lab::make("build/go_kept.gostripped").join("go_kept.gostripped");
    assert_named(&hunted(&[path(&program)], "mappings"), "main.keepRequest");
}

#[test]
fn symbols_that_were_left_compressed_name_functions_and_the_allocators() {
    let program = lab::make("build/malloc_in_use.minidebug").join("malloc_in_use.minidebug");
    assert_named(&hunted(&[path(&program)], "heap"), "leak_chunk");
}

/// A container has the debug files of its own distribution.
#[test]
fn debug_files_are_looked_for_in_the_targets_own_root() {
    let build = lab::build();
    let root = tempfile::tempdir().expect("a folder");
    fs::copy(build.join("malloc_in_use.stripped"), root.path().join("server")).expect("copied");
    let notes = Command::new("readelf").arg("-n").arg(root.path().join("server")).output();
    let notes = String::from_utf8(notes.expect("readelf is installed").stdout).expect("text");
    let id = notes.lines().find_map(|l| l.trim().strip_prefix("Build ID: ")).expect("a build id");
    let debug = root.path().join("usr/lib/debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&debug).expect("a folder");
    let file = debug.join(format!("{}.debug", &id[2..]));
    fs::copy(build.join("malloc_in_use.static"), file).expect("copied");
    assert_named(&hunted(&["chroot", path(root.path()), "/server"], "mappings"), "leak_chunk");
}
