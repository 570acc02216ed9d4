//! `plumb mem` on every CPython that is installed: arenas and heap within 2 % of the truth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_tests::lab::{self, Program};
use plumb_tests::ledger::{self, faults};

/// The interpreters on PATH and those that pyenv keeps, one a version.
fn interpreters() -> BTreeMap<String, PathBuf> {
    let mut found: Vec<PathBuf> = vec!["python3".into()];
    found.extend((9..=14).map(|minor| PathBuf::from(format!("python3.{minor}"))));
    if let Ok(root) = Command::new("pyenv").arg("root").output() {
        let root = PathBuf::from(String::from_utf8_lossy(&root.stdout).trim());
        let versions = std::fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
        found.extend(versions.map(|version| version.path().join("bin/python3")));
    }
    found.iter().filter_map(|python| real(python)).collect()
}

/// The version and the very file of an interpreter: launchers fork, and are not what is measured.
fn real(python: &Path) -> Option<(String, PathBuf)> {
    let ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)";
    let output = Command::new(python).args(["-c", ask]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (version, path) = text.trim().split_once(' ')?;
    let minor: u32 = version.strip_prefix("3.")?.parse().ok()?;
    (9..=14).contains(&minor).then(|| (version.to_owned(), PathBuf::from(path)))
}

#[test]
fn every_installed_version_is_split_right() {
    let interpreters = interpreters();
    assert!(!interpreters.is_empty(), "no python3 of 3.9 or later: run `make test-packages`");
    for (version, python) in &interpreters {
        for name in ["py_small.py", "py_large.py", "py_freed.py"] {
            let base = Program::python(python, name, &[("LAB_BYTES", "64")]);
            let base = ledger::of(base.pid());
            let program = Program::python(python, name, &[]);
            let seen = ledger::of(program.pid());
            assert_eq!(seen.layer("python"), 0, "{version}: not split: {}", seen.json["notes"]);
            let found = faults(&program, &seen, Some(&base));
            assert!(found.is_empty(), "{version} {name}: {}", found.join("; "));
        }
    }
}

#[test]
fn arrays_of_numpy_are_the_heaps() {
    let python = lab::folder().join("../.venv/bin/python");
    assert!(python.exists(), "no .venv: run `make clients`");
    let base = Program::python(&python, "py_numpy.py", &[("LAB_BYTES", "64")]);
    let base = ledger::of(base.pid());
    let program = Program::python(&python, "py_numpy.py", &[]);
    let seen = ledger::of(program.pid());
    assert_eq!(faults(&program, &seen, Some(&base)), Vec::<String>::new());
    assert!(seen.layer("heap_in_use") > 48 << 20);
}
