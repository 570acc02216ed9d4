//! The contract of `plumb mem`: its JSON as docs/json.md tells it, its errors, its exit status.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use plumb_tests::lab::Program;
use plumb_tests::ledger;
use plumb_tests::rightless::Rightless;
use serde_json::Value;

const LAYERS: [&str; 12] = [
    "code",
    "files",
    "shared",
    "heap_in_use",
    "heap_retained",
    "python_in_use",
    "python_free",
    "stacks",
    "jit",
    "device",
    "anonymous",
    "huge_page_slack",
];
const BEYOND: [&str; 8] = [
    "memfd_unmapped",
    "tmpfs_unmapped",
    "swap",
    "page_tables",
    "kernel_stacks",
    "sockets",
    "pinned",
    "hugetlb",
];

fn names(rows: &Value, key: &str) -> Vec<String> {
    let rows = rows.as_array().expect("rows");
    rows.iter().map(|row| row[key].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn json_is_as_documented() {
    let program = Program::named("memfd_held", &[]);
    let output = ledger::run(&[&program.pid().to_string()]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("only JSON");
    let process = &json["processes"][0];
    for key in ["pid", "rss_bytes", "vm_rss_bytes", "pss_bytes", "drift_bytes", "vmas"] {
        assert!(process[key].is_u64(), "{key}: {}", process[key]);
    }
    assert!(process["residual_bytes"].is_i64());
    assert_eq!(process["name"], "memfd_held");
    assert_eq!(names(&process["layers"], "layer"), LAYERS);
    assert_eq!(names(&process["beyond_rss"], "kind"), BEYOND);
    for row in process["layers"].as_array().unwrap() {
        assert!(row["resident_bytes"].is_u64() && row["vmas"].is_u64(), "{row}");
        for part in row["biggest"].as_array().unwrap() {
            assert!(part["name"].is_string() && part["start"].is_u64(), "{part}");
        }
    }
    let memfds = &process["beyond_rss"][0];
    assert!(memfds["items"][0]["name"].as_str().unwrap().contains("lab-held"), "{memfds}");
    assert!(memfds["items"][0]["descriptors"][0].is_u64());
    for key in ["classification_s", "heap_s", "python_s", "huge_pages_s", "beyond_s"] {
        assert!(process["cost"][key].is_f64(), "{key}");
    }
    let docs = include_str!("../../docs/json.md");
    let keys = process.as_object().unwrap().keys();
    let rows = LAYERS.iter().chain(&BEYOND).map(|name| (*name).to_owned());
    for key in keys.cloned().chain(rows) {
        assert!(docs.contains(&format!("`{key}`")), "docs/json.md does not tell of {key}");
    }
}

/// What `plumb mem` says of a target that it cannot read.
fn refusal(target: &str) -> String {
    let output = ledger::run(&[target]);
    assert_eq!(output.status.code(), Some(1), "{target}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON all the same");
    assert_eq!(json["processes"].as_array().map(Vec::len), Some(0));
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "one clear line: {text}");
    text
}

#[test]
fn what_cannot_be_read_is_one_clear_line() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().to_string();
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    assert!(refusal(&pid).contains("zombie"));
    child.wait().unwrap();
    assert!(refusal(&pid).contains("does not exist"));
    assert!(refusal("no-such-name-at-all").contains("no running process"));
    // The kernel's first thread of its own is pid 2, where the pid namespace shows it.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        assert!(refusal("2").contains("kernel thread"));
    }
    let usage = Command::new(plumb_tests::process::plumb()).arg("mem").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn without_root_ones_own_processes_are_seen_and_others_are_refused() {
    let user = Rightless::new();
    let plumb = plumb_tests::process::plumb();
    let own = Program::start(user.command(&plumb_tests::lab::build().join("malloc_in_use")));
    let pid = own.pid().to_string();
    let output = user.command(&plumb).args(["mem", "--json", &pid]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seen = ledger::ledgers(&json).remove(0);
    assert_eq!(ledger::faults(&own, &seen, None), Vec::<String>::new());

    // The first process is somebody else's, unless we are root in our own container.
    let output = user.command(&plumb).args(["mem", "1"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("no permission") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn one_failure_does_not_hide_the_others() {
    let program = Program::named("memfd_held", &[]);
    let output = ledger::run(&[&program.pid().to_string(), "no-such-name-at-all"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["processes"][0]["pid"].as_u64(), Some(program.pid()));
}

#[test]
fn the_tree_has_the_children_and_shared_pages_count_once_in_pss() {
    let program = Program::named("fork_child", &[]);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let output = ledger::run(&["--tree", &parent]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = ledger::ledgers(&json);
    assert_eq!(all.len(), 6, "a parent and five children");
    let leaking = all.iter().filter(|ledger| ledger.layer("anonymous") > 40 << 20);
    let pids: Vec<u64> = leaking.filter_map(|ledger| ledger.json["pid"].as_u64()).collect();
    assert_eq!(pids, [program.pid()]);
    for ledger in &all {
        assert_eq!(ledger.residual_fault(), None);
        assert!(ledger.json["pss_bytes"].as_i64().unwrap() < ledger.rss());
    }
}

/// A process of Python's that makes many mappings, told when it is ready.
fn mappings(count: usize) -> Child {
    let program = format!(
        "import mmap, sys\n\
         held = [mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE, prot=3) for _ in range({count})]\n\
         import ctypes; c = ctypes.CDLL(None)\n\
         for m in held:\n\
         \x20 m[0] = 1\n\
         \x20 a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n\
         \x20 c.mprotect(ctypes.c_void_p(a), ctypes.c_size_t(4096), 1)\n\
         print('ready', flush=True); sys.stdin.read()\n"
    );
    let mut child = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{count} mappings");
    child
}

fn end(mut child: Child) {
    child.stdin.take().unwrap().write_all(b"\n").ok();
    child.kill().ok();
    child.wait().unwrap();
}

#[test]
fn two_thousand_mappings_are_cheap_and_sixty_thousand_whole() {
    let child = mappings(1000);
    let pid = child.id().to_string();
    let fastest = (0..5)
        .map(|_| {
            let output = ledger::run(&["--quick", &pid]);
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(json["processes"][0]["vmas"].as_u64().unwrap() > 2000);
            json["processes"][0]["cost"]["classification_s"].as_f64().unwrap()
        })
        .fold(f64::MAX, f64::min);
    end(child);
    assert!(fastest < 0.050, "{fastest} s for 2,000 mappings");

    // `vm.max_map_count` is 65,530 unless somebody raised it.
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let child = mappings((limit - 1000).min(100_000) / 2);
    let seen = ledger::of(child.id().into());
    end(child);
    assert_eq!(seen.residual_fault(), None);
    assert!(seen.layer("anonymous") > 100 << 20, "{:?}", seen.layers);
}
