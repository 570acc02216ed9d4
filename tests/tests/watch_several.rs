//! `plumb watch` on several processes: children, and those that answer to a pattern.

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};
use std::time::Duration;

use plumb_tests::process::wait_for;
use plumb_tests::watch::{Growing, Watched, command, is_leak};
use serde_json::Value;

#[test]
fn a_leak_of_several_children_none_of_which_leaks_enough_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record").display().to_string();
    let leak = plumb_tests::lab::build().join("mmap_anonymous").display().to_string();
    // They read their standard input, and end when it closes.
    let script = format!("exec 9<&0; {} wait", format!("{leak} <&9 & ").repeat(6));
    let mut command = command(&["--json", "--fail-on-leak", "--for", "50s", "--budget", "10"]);
    command.args(["--record", &record, "--", "sh", "-c", &script]);
    command.env("LAB_RATE", "80000").env("LAB_SECONDS", "60").stdin(Stdio::piped());
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let input = watch.stdin.take();
    let watched = Watched::of(&watch.wait_with_output().expect("it ends"));
    drop(input);
    let last = watched.lines.last().expect("lines");
    assert_eq!((watched.status, &last["pid"], &last["processes"]), (3, &0.into(), &7.into()));
    let rate = last["verdict"]["bytes_per_s"].as_f64().expect("a rate");
    assert!((rate / 480_000.0 - 1.0).abs() < 0.1, "{last}");
    let alone = watched.lines.iter().find(|l| l["pid"] != 0 && is_leak(&l["verdict"]));
    assert!(alone.is_none(), "{alone:?}");
    let replayed = Watched::run(&["--replay", &record, "--fail-on-leak"]);
    assert_eq!(replayed.status, 3);
    for key in ["kind", "leak", "layer", "bytes_per_s", "interval", "why"] {
        assert_eq!(replayed.verdict(0)[key], last["verdict"][key], "{key} of {last}");
    }
}

#[test]
fn a_child_that_leaked_until_the_command_ended_is_told() {
    let leak = plumb_tests::lab::build().join("mmap_anonymous").display().to_string();
    // It ends when its standard input closes, or after so many seconds.
    let script = format!("exec 9<&0; {leak} <&9 & wait");
    let mut command = command(&["--json", "--fail-on-leak", "--", "sh", "-c", &script]);
    command.env("LAB_RATE", "2000000").env("LAB_SECONDS", "24").stdin(Stdio::piped());
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let input = watch.stdin.take();
    let watched = Watched::of(&watch.wait_with_output().expect("it ends"));
    drop(input);
    assert_eq!(watched.status, 3, "{}", watched.errors);
    let last = watched.lines.last().expect("lines");
    assert!(is_leak(&last["verdict"]) && last["name"] == "mmap_anonymous", "{last}");
}

#[test]
fn who_answers_to_a_pattern_later_joins_and_who_ends_is_said_to_have_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (program, record) = (path(&format!("join{}", std::process::id())), path("record"));
    std::fs::copy(plumb_tests::lab::build().join("mmap_anonymous"), &program).expect("copied");
    let start = || Growing::start(&program, &[("LAB_RATE", "4000000")]);
    let first = start();
    let pattern = program.rsplit('/').next().expect("a name");
    let mut watch = command(&["--json", "--for", "30s", "--budget", "20", "--record", &record]);
    watch.arg(pattern).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = watch.spawn().expect("it runs");
    let old = first.pid();
    let is_seen =
        || std::fs::read_to_string(&record).ok()?.contains(&old.to_string()).then_some(());
    wait_for("the first is seen", Duration::from_secs(10), is_seen);
    drop(first);
    // Nobody answers to it for a while, as in a restart.
    let mut errors = BufReader::new(watch.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("has ended") {
        assert_ne!(errors.read_line(&mut said).expect("a line"), 0, "{said}");
    }
    let second = start();
    let output = watch.wait_with_output().expect("it ends");
    errors.read_to_string(&mut said).expect("the rest");
    let watched = Watched::of(&Output { stderr: said.into_bytes(), ..output });
    assert_eq!(watched.verdict(second.pid().into())["leak"], true, "{}", watched.errors);
    let gone = watched.of_pid(old.into()).last().expect("its final line");
    assert_eq!((&gone["ended"], &gone["last"]), (&Value::Bool(true), &Value::Bool(true)), "{gone}");
    for (pid, what) in [(old, "has ended"), (second.pid(), "joins the watch")] {
        let said = |line: &str| line.contains(&format!("process {pid} ")) && line.contains(what);
        assert!(watched.errors.lines().any(said), "{pid} {what}: {}", watched.errors);
    }
    let replayed = Watched::run(&["--replay", &record]);
    for line in watched.lines.iter().filter(|line| line["last"] == true) {
        let again = replayed.of_pid(line["pid"].as_u64().expect("a pid")).last().expect("replayed");
        assert_eq!(again["ended"], line["ended"]);
        for key in ["kind", "leak", "layer", "bytes_per_s", "interval", "why"] {
            assert_eq!(again["verdict"][key], line["verdict"][key], "{key} of {line}");
        }
    }
}
