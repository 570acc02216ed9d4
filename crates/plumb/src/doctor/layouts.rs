//! Which allocators and interpreters of this machine have layouts that were run, and which only
//! have a table.

use std::collections::BTreeSet;
use std::path::PathBuf;

use plumb_target::{Process, glibc, images, maps, python};

use super::{Check, State};

pub(super) fn checks(child: &Process) -> Vec<Check> {
    vec![allocator(child), other_allocators(), interpreters()]
}

const UNTESTED: &str = "layout table, untested: the layers are checked against themselves when \
                        read, and shown unsplit where they contradict; compare `plumb mem` with \
                        what the program says of itself";

fn allocator(child: &Process) -> Check {
    let what = "heap_in_use and heap_retained apart";
    let Some(version) = c_library(child) else {
        return Check::ok("glibc", what, "this program does not run on glibc").but(
            State::Limited,
            "heaps of other C libraries than glibc and musl are shown as `anonymous` or `heap`",
        );
    };
    let check = Check::ok("glibc", what, format!("{version}: layout run against this version"));
    if glibc::TESTED.contains(&version.as_str()) {
        return check;
    }
    Check { found: format!("{version}: layout table, untested"), ..check }
        .but(State::Limited, UNTESTED)
}

/// Where libraries are on the usual systems.
const FOLDERS: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/lib",
];

/// Beginnings of the names of allocators' libraries, what they are called, and what the ledger makes of
/// their heaps.
const OTHERS: [(&str, &str, &str); 4] = [
    ("libjemalloc.so.", "jemalloc", "listed by its own records"),
    ("libmimalloc.so.", "mimalloc", "split by its own records"),
    ("ld-musl-", "musl", "split by its own records"),
    ("libtcmalloc", "tcmalloc", "listed by its own records"),
];

/// Nothing here is a fault: the row says what a person may expect of programs that bring their own.
fn other_allocators() -> Check {
    let names = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let here: BTreeSet<String> = names
        .filter_map(|name| OTHERS.iter().find(|(start, ..)| name.starts_with(start)))
        .map(|(_, called, what)| format!("{called} ({what})"))
        .collect();
    let found = if here.is_empty() {
        "none among the system's libraries; one that is linked into a program is found there".into()
    } else {
        here.into_iter().collect::<Vec<_>>().join(", ")
    };
    Check::ok("allocators", "heap as a layer with other allocators than glibc's", found)
}

/// The version that the C library says in its own banner.
fn c_library(child: &Process) -> Option<String> {
    const BANNER: &[u8] = b"release version ";
    let maps = maps::read(child).ok()?;
    let images = images(child, &maps);
    let library = images.iter().find(|image| image.name().starts_with("libc.so"))?;
    let bytes = std::fs::read(child.path_in_root(&library.path)).ok()?;
    let at = bytes.windows(BANNER.len()).position(|w| w == BANNER)? + BANNER.len();
    let end = bytes[at..].iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
    Some(String::from_utf8_lossy(&bytes[at..at + end]).trim_end_matches('.').to_owned())
}

fn interpreters() -> Check {
    let what = "python_in_use and python_free apart";
    let found = on_path();
    if found.is_empty() {
        return Check::ok("cpython", what, format!("none on PATH; proven: {}", range()));
    }
    let (tested, untested): (Vec<&u32>, Vec<&u32>) =
        found.iter().partition(|minor| python::TESTED.contains(minor));
    let list = |minors: &[&u32]| {
        minors.iter().map(|minor| format!("3.{minor}")).collect::<Vec<_>>().join(", ")
    };
    let mut text = vec![];
    if !tested.is_empty() {
        text.push(format!("{}: layout run against it", list(&tested)));
    }
    if !untested.is_empty() {
        text.push(format!("{}: layout table, untested", list(&untested)));
    }
    let check = Check::ok("cpython", what, text.join("; "));
    if untested.is_empty() { check } else { check.but(State::Limited, UNTESTED) }
}

fn range() -> String {
    format!("3.{} to 3.{}", python::TESTED.start(), python::TESTED.end())
}

/// Minor versions of the interpreters that PATH names, links followed.
fn on_path() -> BTreeSet<u32> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = (6..30).map(|minor| format!("python3.{minor}")).chain(["python3".into()]);
    let names: Vec<String> = names.collect();
    std::env::split_paths(&path)
        .flat_map(|folder| {
            names.iter().map(move |name| folder.join(name)).collect::<Vec<PathBuf>>()
        })
        .filter_map(|file| minor(&file.canonicalize().ok()?.file_name()?.to_string_lossy()))
        .collect()
}

fn minor(name: &str) -> Option<u32> {
    name.strip_prefix("python3.")?.parse().ok()
}
