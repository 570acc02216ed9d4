//! `plumb hunt` on the lab, as a user runs it: the right verdict, layer and function, the bytes
//! within 2 % of the program's own truth, and nobody named where nothing leaks. Needs root.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use plumb_tests::hunt::{self, Hunted};
use plumb_tests::process::plumb;
use plumb_tests::rightless::Rightless;
use plumb_tests::{lab, text};
use serde_json::Value;

/// Hunts of several tests at once would starve each other, and a starved watch cannot tell.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MIB: u64 = 1 << 20;
const RATE: u64 = 4 * MIB;
/// Enough seconds at that rate for the watch to judge, also on a busy machine.
const GROWN: u64 = 128 * MIB;

fn truth_bytes(hunted: &Hunted) -> u64 {
    let sum = |key: &str| -> u64 {
        let layers = hunted.truth[key].as_object().into_iter().flatten();
        layers.filter_map(|(_, bytes)| bytes.as_u64()).sum()
    };
    sum("layers") + sum("beyond_rss")
}

/// The program's function stands on the first culprit's stack and holds what it says.
fn assert_named(hunted: &Hunted, layers: &[&str]) {
    let verdict = &hunted.report["verdict"];
    assert_eq!(verdict["leak"], true, "{verdict:#}");
    let layer = verdict["layer"].as_str().unwrap_or("none");
    assert!(layers.contains(&layer), "{layer} is none of {layers:?}: {verdict:#}");
    let function = hunted.truth["functions"][0].as_str().expect("a function");
    assert!(hunted.first_stack().iter().any(|f| f.ends_with(function)), "{:#}", hunted.report);
    assert_eq!(hunted.report["lost_events"], 0);
    assert_close(hunted, function);
}

fn assert_close(hunted: &Hunted, function: &str) {
    let first = hunted.first_stack();
    let name = first.iter().find(|f| f.ends_with(function)).expect("named");
    let (held, truth) = (hunted.held_by(name) as f64, truth_bytes(hunted) as f64);
    let off = (held - truth).abs() / truth;
    assert!(off < 0.02, "{function} holds {held}, the truth is {truth}: {:.1} % off", off * 100.0);
}

#[test]
fn mappings_are_charged_to_who_made_them() {
    let _alone = alone();
    let programs = [
        "file_private",
        "mmap_deep_frame",
        "munmap_partial",
        "mremap_moves",
        "shm_sysv",
        "thread_stacks",
    ];
    thread::scope(|scope| {
        let hunts = programs.map(|p| {
            let path = format!("build/{p}");
            scope.spawn(move || hunt::hunt(&[path.as_str()], RATE, GROWN))
        });
        for hunt in hunts {
            let hunted = hunt.join().expect("hunted");
            assert_named(&hunted, &["anonymous", "shared", "stacks"]);
        }
    });
}

#[test]
fn heaps_and_python_are_charged_to_who_allocates() {
    let _alone = alone();
    thread::scope(|scope| {
        let c = scope.spawn(|| hunt::hunt(&["build/malloc_in_use"], RATE, GROWN));
        let churn = scope.spawn(|| hunt::hunt(&["build/malloc_churn"], RATE, GROWN));
        let patched = scope.spawn(|| hunt::hunt(&["build/munmap_patched"], RATE, GROWN));
        let python = scope.spawn(|| hunt::hunt(&["python3", "py_large.py"], RATE, GROWN));
        let (c, patched, python) =
            (c.join().expect("c"), patched.join().expect("patched"), python.join().expect("py"));
        assert_named(&c, &["heap_in_use", "heap"]);
        // Who makes a heap grow is rarely who keeps it: only the probes can tell.
        let churn = churn.join().expect("churn");
        assert!(churn.first_stack().iter().any(|f| f == "keep_session"), "{:#}", churn.report);
        assert!(churn.report["culprits"][0]["share_error"].is_f64());
        assert_eq!(patched.report["verdict"]["leak"], true, "{:#}", patched.report["verdict"]);
        assert!(patched.first_stack().iter().any(|f| f == "serve_request"));
        assert_eq!(python.report["verdict"]["leak"], true, "{:#}", python.report["verdict"]);
        let frames = python.report["culprits"][0]["frames"].as_array().expect("frames").clone();
        let remember = frames.iter().find(|f| f["function"] == "remember").expect("its function");
        assert_eq!(remember["kind"], "python");
        assert!(remember["line"].is_u64(), "{remember}");
        assert!(python.report["python"]["types"][0]["count"].is_u64(), "{:#}", python.report);
        assert!(frames.iter().any(|f| f["kind"] == "native"));
    });
}

#[test]
fn nobody_is_named_where_nothing_leaks() {
    let _alone = alone();
    let programs = ["reserve_untouched", "dontneed_sawtooth", "file_clean", "cache_plateau"];
    thread::scope(|scope| {
        let hunts = programs.map(|p| {
            scope.spawn(move || {
                let path = format!("build/{p}");
                let mut child = hunt::start(&[path.as_str()], RATE, &["--for", "26s"]);
                let mut text = String::new();
                child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
                drop(child.stdin.take());
                assert!(child.wait().expect("ours").success());
                (p, serde_json::from_str::<Value>(&text).expect("a report"))
            })
        });
        for hunt in hunts {
            let (program, report) = hunt.join().expect("hunted");
            assert_ne!(report["verdict"]["leak"], true, "{program}: {:#}", report["verdict"]);
            if report["verdict"]["leak"] == false {
                assert_eq!(report["culprits"].as_array().map(Vec::len), Some(0), "{program}");
            }
        }
    });
}

/// Too short for the watch to judge; who holds the growth is plain all the same.
#[test]
fn a_short_hunt_names_who_grows_too() {
    let _alone = alone();
    let programs = [
        ("mmap_anonymous", "anonymous", "leak_mapping", "mappings"),
        ("tmpfs_held", "tmpfs_unmapped", "leak_file", "mappings"),
        ("malloc_churn", "heap", "keep_session", "heap"),
    ];
    thread::scope(|scope| {
        let hunts = programs.map(|(program, layer, function, floor)| {
            scope.spawn(move || {
                let path = format!("build/{program}");
                let options = ["--for", "10s", "--floor", floor];
                let mut child = hunt::start(&[path.as_str()], 2 * RATE, &options);
                let mut text = String::new();
                child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
                drop(child.stdin.take());
                assert!(child.wait().expect("ours").success());
                let report: Value = serde_json::from_str(&text).expect("a report");
                (report, layer, function)
            })
        });
        for hunt in hunts {
            let (report, layer, function) = hunt.join().expect("hunted");
            let seen = report["verdict"]["layer"].as_str().unwrap_or("none");
            assert!(seen.starts_with(layer), "{seen}, not {layer}: {report:#}");
            let frames = report["culprits"][0]["frames"].as_array().expect("a culprit");
            assert!(frames.iter().any(|f| f["function"] == function), "{report:#}");
        }
    });
}

/// A library that patches malloc while it is probed would copy a breakpoint into its trampoline.
#[test]
fn probes_come_off_before_a_target_can_patch_probed_text() {
    let _alone = alone();
    let hunted = hunt::hunt(&["build/malloc_text_writable"], RATE, GROWN);
    let why = hunted.report["cost"]["not_probed"].as_str().unwrap_or_default();
    assert!(why.contains("writable"), "{:#}", hunted.report["cost"]);
    // It was stopped, and went on: else it would not have grown.
    assert!(truth_bytes(&hunted) >= GROWN / 2, "{}", hunted.truth);
}

#[test]
fn the_target_is_left_as_it_was_and_the_report_has_its_form() {
    let _alone = alone();
    let mut target = Command::new(lab::build().join("munmap_patched"))
        .env("LAB_RATE", RATE.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    // It serves, so that it has patched itself.
    while hunt::weight(target.id()) < 4 * MIB {
        thread::yield_now();
    }
    let before = text::of(target.id());
    let pid = target.id().to_string();
    let files = tempfile::tempdir().expect("a folder");
    let path = |name: &str| files.path().join(name).display().to_string();
    let out = Command::new(plumb())
        .args(["hunt", &pid, "--for", "3s", "--json", "--html", &path("h.html")])
        .args(["--folded", &path("f"), "--pprof", &path("p.gz"), "--firefox", &path("ff.json")])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(before == text::of(target.id()), "text differs after the hunt");
    drop(target.stdin.take());
    target.wait().expect("ours");
    let report: Value = serde_json::from_slice(&out.stdout).expect("only JSON on stdout");
    assert_form(&report);
    assert!(fs::read_to_string(path("h.html")).expect("html").contains("</html>"));
    assert_eq!(&fs::read(path("p.gz")).expect("pprof")[..2], [0x1f, 0x8b]);
    let profile: Value =
        serde_json::from_slice(&fs::read(path("ff.json")).expect("firefox")).expect("JSON");
    assert_eq!(profile["threads"].as_array().map(Vec::len), Some(1));
}

/// The contract of docs/json.md.
fn assert_form(report: &Value) {
    let verdict = &report["verdict"];
    for key in ["pid", "kind", "leak", "layer", "bytes_per_s", "interval", "oom_in_s", "why"] {
        assert!(verdict.get(key).is_some(), "verdict has no {key}");
    }
    for culprit in report["culprits"].as_array().expect("culprits") {
        for key in ["pid", "outstanding_bytes", "older_bytes", "count"] {
            assert!(culprit[key].is_u64(), "culprit's {key}: {}", culprit[key]);
        }
        let share = culprit["share"].as_f64().expect("a share");
        assert!((0.0..=1.0).contains(&share));
        for frame in culprit["frames"].as_array().expect("frames") {
            assert!(matches!(frame["kind"].as_str(), Some("native" | "python")));
            for key in ["function", "module", "file", "line"] {
                assert!(frame.get(key).is_some(), "frame has no {key}");
            }
        }
    }
    assert!(report["hooks"].is_object() && report["advice"].is_array());
    assert!(report["lost_events"].is_u64() && report["cost"].is_object());
}

#[test]
fn a_process_that_is_not_there_is_said_so() {
    let _alone = alone();
    let out =
        Command::new(plumb()).args(["hunt", "4194304", "--for", "1s"]).output().expect("runs");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("4194304"));
    assert!(out.stdout.is_empty());
}

/// Where nothing may be traced, what needs no tracing is done, and the rest named.
#[test]
fn without_rights_there_is_a_verdict_and_a_line_on_what_stacks_need() {
    let user = Rightless::new();
    let program = user.copy(&lab::build().join("malloc_in_use"));
    let mut hunt = user.command(&plumb());
    hunt.args(["hunt", "--json", "--for", "25s", "--"]).arg(program);
    hunt.env("LAB_RATE", RATE.to_string()).env("LAB_SECONDS", "26");
    hunt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut hunt = hunt.spawn().expect("it starts");
    // The program ends when its standard input does.
    let input = hunt.stdin.take();
    let output = hunt.wait_with_output().expect("it runs");
    drop(input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let verdict = &report["verdict"];
    assert_eq!((&verdict["leak"], &verdict["layer"]), (&true.into(), &"heap_in_use".into()));
    if rustix::process::geteuid().is_root() {
        let why = report["cost"]["not_traced"].as_str().unwrap_or_default();
        assert!(why.contains("CAP_BPF") && why.contains("CAP_PERFMON"), "{}", report["cost"]);
        assert_eq!(report["culprits"], Value::Array(Vec::new()));
    }
    let output = user.command(&plumb()).args(["hunt", "--for", "1s", "1"]).output();
    let output = output.expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("no permission"), "{errors}");
}
