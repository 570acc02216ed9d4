//! `plumb watch` on programs that leak and on programs that only look so, all at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use plumb_tests::process::wait_for;
use plumb_tests::watch::{Growing, Watched, command, is_leak};
use serde_json::Value;

/// How long they are watched: at the end of a watch 18 s are enough for a verdict.
const TIME: &str = "27s";
/// Many are watched by one; each has a share of what looking may cost.
const BUDGET: &str = "60";

/// Program, bytes a second, further environment, the layer that leaks, how far off the rate may be.
type Leak = (&'static str, u32, &'static [(&'static str, &'static str)], &'static str, f64);

const LEAKS: [Leak; 18] = [
    ("malloc_in_use", 8_000_000, &[], "heap_in_use", 0.1),
    ("malloc_in_use", 1_000_000, &[], "heap_in_use", 0.1),
    ("malloc_in_use", 500_000, &[], "heap_in_use", 0.1),
    ("mmap_anonymous", 8_000_000, &[], "anonymous", 0.1),
    ("mmap_anonymous", 1_000_000, &[], "anonymous", 0.1),
    ("mmap_anonymous", 500_000, &[], "anonymous", 0.1),
    ("py_small.py", 1_000_000, &[], "python_in_use", 0.1),
    ("py_large.py", 1_000_000, &[], "heap_in_use", 0.1),
    ("jit_pages", 1_000_000, &[], "jit", 0.1),
    ("thread_stacks", 8_000_000, &[], "stacks", 0.1),
    ("memfd_held", 8_000_000, &[], "memfd_unmapped", 0.1),
    ("shm_detached", 1_000_000, &[], "tmpfs_unmapped", 0.1),
    ("pipes_unread", 1_000_000, &[], "sockets", 0.1),
    ("fork_child", 1_000_000, &[], "anonymous", 0.1),
    ("file_private", 1_000_000, &[], "anonymous", 0.1),
    ("leak_under_noise", 1_000_000, &[], "heap_in_use", 0.1),
    // Few bursts and teeth lie in half a window: the rate is as sure as they are many.
    ("leak_bursts", 1_000_000, &[], "anonymous", 0.3),
    ("leak_under_sawtooth", 2_000_000, &[], "anonymous", 0.3),
];

/// Program, bytes a second, further environment.
type LookAlike = (&'static str, u32, &'static [(&'static str, &'static str)]);

const LOOK_ALIKES: [LookAlike; 15] = [
    ("cache_plateau", 2_000_000, &[("LAB_CACHE", "16000000")]),
    ("cache_plateau", 8_000_000, &[("LAB_CACHE", "50000000"), ("LAB_SEED", "2")]),
    ("retention_rounds", 8_000_000, &[]),
    ("retention_rounds", 3_000_000, &[("LAB_SEED", "3")]),
    ("file_clean", 2_000_000, &[("LAB_BYTES", "70000000")]),
    ("reserve_untouched", 1_000_000, &[]),
    ("dontneed_sawtooth", 8_000_000, &[]),
    ("dontneed_sawtooth", 2_000_000, &[("LAB_TOOTH", "7000000")]),
    ("jit_warming", 4_000_000, &[]),
    ("jit_warming", 1_000_000, &[("LAB_WARM", "30")]),
    ("huge_slack", 4_000_000, &[]),
    ("huge_slack", 1_000_000, &[]),
    ("py_cycles.py", 1_000_000, &[]),
    ("py_cycles.py", 300_000, &[]),
    ("mmap_anonymous", 0, &[]),
];

fn start(name: &str, rate: u32, environment: &[(&str, &str)]) -> Growing {
    let rate = rate.to_string();
    let mut all = vec![("LAB_RATE", rate.as_str())];
    all.extend(environment);
    Growing::start(name, &all)
}

fn arguments(programs: &[Growing]) -> Vec<String> {
    let fixed = ["--json", "--for", TIME, "--budget", BUDGET, "--fail-on-leak"];
    let pids = programs.iter().map(|program| program.pid().to_string());
    fixed.iter().map(|&s| s.to_owned()).chain(pids).collect()
}

/// Runs two watches at once: the first of programs that leak, the second of those that only seem to.
fn watch_both(leaks: &[Growing], others: &[Growing], record: &str) -> (Watched, Watched) {
    let run = |programs: &[Growing], more: &[&str]| {
        let mut command = command(&[]);
        command.args(arguments(programs)).args(more).stdin(Stdio::null());
        Watched::of(&command.output().expect("plumb runs"))
    };
    std::thread::scope(|scope| {
        let leaking = scope.spawn(|| run(leaks, &["--record", record]));
        let looking = run(others, &[]);
        (leaking.join().expect("a watch"), looking)
    })
}

/// What is wrong with the verdict on a leak.
fn wrong(leak: &Leak, verdict: &Value) -> Option<String> {
    let &(name, rate, _, layer, off) = leak;
    let seen = verdict["bytes_per_s"].as_f64().unwrap_or(0.0);
    let right = verdict["leak"] == true
        && verdict["layer"] == layer
        && (seen / f64::from(rate) - 1.0).abs() <= off;
    (!right).then(|| format!("{name} at {rate} B/s in {layer}: {verdict}"))
}

#[test]
fn leaks_and_what_looks_like_them_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record").display().to_string();
    let leaks: Vec<Growing> = LEAKS.iter().map(|(n, rate, env, ..)| start(n, *rate, env)).collect();
    let others: Vec<Growing> =
        LOOK_ALIKES.iter().map(|(n, rate, env)| start(n, *rate, env)).collect();
    let (leaking, looking) = watch_both(&leaks, &others, &record);

    let mut faults = Vec::new();
    for (known, program) in LEAKS.iter().zip(leaks) {
        // One child of many may be what leaks: the truth says which.
        let pid = program.end()["pid"].as_u64().expect("a pid");
        faults.extend(wrong(known, leaking.verdict(pid)));
    }
    for ((name, rate, _), program) in LOOK_ALIKES.iter().zip(&others) {
        let called = looking.of_pid(program.pid().into()).find(|l| is_leak(&l["verdict"]));
        let layers = looking.of_pid(program.pid().into()).flat_map(|l| l["layers"].as_array());
        let layer = layers.flatten().find(|layer| is_leak(layer));
        faults.extend(called.or(layer).map(|line| format!("{name} at {rate} B/s: {line}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!((leaking.status, looking.status == 3), (3, false));

    let replayed = Watched::run(&["--replay", &record, "--fail-on-leak"]);
    assert_eq!(replayed.status, 3);
    for line in leaking.lines.iter().filter(|line| line["last"] == true) {
        let again = replayed.verdict(line["pid"].as_u64().expect("a pid"));
        for key in ["kind", "leak", "layer", "bytes_per_s", "interval", "why"] {
            assert_eq!(again[key], line["verdict"][key], "{key} of {line}");
        }
    }
}

/// Replays a series of time and bytes; the lines before the last, and the last.
fn replay(bytes_at: impl Fn(f64) -> f64, seconds: u32) -> (Vec<Value>, Value, i32) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "time_s,rss").expect("written");
    for time in (0..=seconds).step_by(4).map(f64::from) {
        // A little noise that repeats.
        let noise = (time * 7.0).sin() * 150_000.0;
        writeln!(file, "{time},{:.0}", bytes_at(time) + noise).expect("written");
    }
    let path = file.path().to_str().expect("a path").to_owned();
    let mut watched = Watched::run(&["--replay", &path, "--fail-on-leak"]);
    let last = watched.lines.pop().expect("a final line");
    (watched.lines, last, watched.status)
}

#[test]
fn a_leak_after_an_hour_of_nothing_is_found_in_another_tools_series() {
    let (before, last, status) = replay(|t| 5e8 + 1e6 * (t - 3600.0).max(0.0), 4200);
    let early = before.iter().filter(|line| line["time_s"].as_f64() <= Some(3600.0));
    assert_eq!(early.filter(|line| is_leak(&line["verdict"])).count(), 0);
    assert_eq!((&last["verdict"]["leak"], status), (&Value::Bool(true), 3), "{last}");
    let rate = last["verdict"]["bytes_per_s"].as_f64().expect("a rate");
    assert!((rate / 1e6 - 1.0).abs() < 0.1, "{last}");
}

#[test]
fn a_table_of_another_tool_is_read_by_its_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let row = |t: u32| format!("2024-02-29 23:59:{t:02}.0;7;{}\n", 40_000 + 2_000 * t);
    let minute: String = (0..60).map(row).collect();
    let tables = [
        ("Time;CPU;RSS (KiB)\n".to_owned() + &minute, 0),
        (
            "# Elapsed time   CPU (%)     Real (MB)   Virtual (MB)\n".to_owned()
                + &(0..60)
                    .map(|t| format!("{t:12.3} 1.0 {:12.3} 1.0\n", 40.0 + 1.953125 * f64::from(t)))
                    .collect::<String>(),
            0,
        ),
        (
            "pid,time_ms,rss\n".to_owned()
                + &(0..60)
                    .map(|t| format!("9,{},{}\n", t * 1000, 2_048_000 * t))
                    .collect::<String>(),
            9,
        ),
    ];
    for (index, (table, pid)) in tables.iter().enumerate() {
        let path = folder.path().join(format!("table{index}"));
        std::fs::write(&path, table).expect("written");
        let watched = Watched::run(&["--replay", path.to_str().expect("a path"), "--fail-on-leak"]);
        assert_eq!(watched.status, 3, "{table:.60}: {watched:?}");
        let rate = watched.verdict(*pid)["bytes_per_s"].as_f64().expect("a rate");
        assert!((rate / 2_048_000.0 - 1.0).abs() < 0.01, "{table:.60}: {rate}");
    }
    let path = folder.path().join("backwards");
    std::fs::write(&path, "9,1\n8,1\n7,1\n").expect("written");
    let watched = Watched::run(&["--replay", path.to_str().expect("a path")]);
    assert_eq!(watched.status, 1);
    assert!(watched.errors.contains("oldest first"), "{}", watched.errors);
}

/// What a scraper gets, and how the watch ended.
fn scrape(target: u32) -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut command = command(&["--prometheus", &address, "--for", "30s", &target.to_string()]);
    let mut watch =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("plumb runs");
    let page = wait_for("a page with layers", Duration::from_secs(10), || {
        let mut page = String::new();
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
        stream.read_to_string(&mut page).ok().filter(|_| page.contains("layer_bytes{"))?;
        Some(page)
    });
    watch.kill().expect("it is ours");
    watch.wait().expect("it is ours");
    page
}

#[test]
fn a_scraper_gets_openmetrics() {
    let program = Growing::start("malloc_in_use", &[]);
    let page = scrape(program.pid());
    let (head, body) = page.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let mut family = String::new();
    let mut families = Vec::new();
    for line in body.lines().filter(|line| *line != "# EOF") {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            kind.strip_suffix(" gauge").expect("a gauge").clone_into(&mut family);
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family.clone());
        } else if let Some(about) = line.strip_prefix("# ") {
            assert!(about.contains(&format!("{family} ")), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            assert_eq!(sample.split('{').next(), Some(family.as_str()), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    // A heap that moves while it is read has one row, not two.
    let heap = format!("plumb_watch_layer_bytes{{pid=\"{}\",layer=\"heap", program.pid());
    let rows = body.lines().filter(|line| line.starts_with(&heap));
    let bytes = rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(bytes.fold(0.0, f64::max) > 1e5, "{body}");
}

#[test]
fn hours_of_a_plateau_a_warm_up_and_a_sawtooth_are_no_leak() {
    let shapes: [fn(f64) -> f64; 3] =
        [|t| 2e8 + 3e8 * (1.0 - (-t / 12.0).exp()), |t| 2e8 + 1e8 * (t / 16.0).fract(), |_| 4e9];
    for shape in shapes {
        let (before, last, status) = replay(shape, 7200);
        let called = before.iter().find(|line| is_leak(&line["verdict"]));
        assert!(called.is_none(), "{called:?}");
        assert_eq!((&last["verdict"]["leak"], status), (&Value::Bool(false), 0), "{last}");
    }
}

#[test]
fn a_cache_that_fills_for_an_hour_loses_the_judgement_when_it_is_full() {
    let (before, last, status) = replay(|t| 2e8 + 1e6 * t.min(3600.0), 7200);
    let late =
        before.iter().find(|l| l["time_s"].as_f64() > Some(4200.0) && is_leak(&l["verdict"]));
    assert!(late.is_none(), "{late:?}");
    assert_eq!((&last["verdict"]["leak"], status), (&Value::Bool(false), 0), "{last}");
}

#[test]
fn exit_statuses_are_as_promised() {
    for (arguments, status) in [
        (vec!["--for", "1s", "--", "true"], 0),
        (vec!["--", "sh", "-c", "exit 7"], 7),
        (vec!["--fail-on-leak", "--", "sh", "-c", "exit 7"], 7),
        (vec!["--fail-on-leak", "--", "true"], 4),
        (vec!["--", "sh", "-c", "kill -TERM $$"], 143),
        (vec!["--for", "1s", "--", "sleep", "60"], 0),
        (vec!["--fail-on-leak", "--for", "1s", "--", "sleep", "60"], 4),
    ] {
        let watched = Watched::run(&arguments);
        assert_eq!(watched.status, status, "{arguments:?}: {}", watched.errors);
        let last = watched.lines.last().unwrap_or_else(|| panic!("{arguments:?}: no final line"));
        assert_eq!(last["last"], true, "{arguments:?}");
    }
    // pid_max is at most 2^22.
    for (arguments, status) in [
        (vec!["4194305"], 1),
        (vec!["--replay", "/nonexistent"], 1),
        (vec![], 2),
        (vec!["--for", "x", "1"], 2),
    ] {
        let watched = Watched::run(&arguments);
        assert_eq!(watched.status, status, "{arguments:?}");
        assert!(watched.lines.is_empty() && !watched.errors.is_empty(), "{watched:?}");
    }
}

#[test]
fn a_command_that_the_watch_outlives_leaves_nothing_behind() {
    let marker = format!("{}.5", 100_000 + std::process::id());
    let script = format!("sleep {marker} & sleep {marker}");
    let watched = Watched::run(&["--for", "1s", "--", "sh", "-c", &script]);
    assert_eq!(watched.status, 0, "{}", watched.errors);
    let left = std::fs::read_dir("/proc").expect("/proc").flatten().find(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command.starts_with(b"sleep\0")
            && command.windows(marker.len()).any(|w| w == marker.as_bytes())
    });
    assert!(left.is_none(), "{left:?} runs on");
}

#[test]
fn the_last_line_is_the_final_verdict_also_when_the_target_ends_first_or_a_person_interrupts() {
    let program =
        Growing::start("mmap_anonymous", &[("LAB_RATE", "1000000"), ("LAB_SECONDS", "2")]);
    let watched = Watched::run(&["--for", "100s", &program.pid().to_string()]);
    assert_eq!(watched.status, 0);
    let verdict = watched.verdict(program.pid().into());
    assert!(verdict["leak"].is_null() && verdict["why"].is_string(), "{verdict}");

    let program = Growing::start("mmap_anonymous", &[]);
    let mut command = command(&["--json", &program.pid().to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("plumb runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is ours");
    out.read_to_string(&mut line).expect("the rest");
    assert_eq!(child.wait().expect("it is ours").code(), Some(0));
    let last: Value = serde_json::from_str(line.lines().last().expect("lines")).expect("JSON");
    assert_eq!(last["last"], true);
}

#[test]
fn without_a_terminal_it_prints_the_final_word_as_text() {
    let program = Growing::start("mmap_anonymous", &[]);
    let pid = program.pid().to_string();
    let output = command(&["--for", "1s", &pid]).output().expect("plumb runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with(&format!("process {pid} (mmap_anonymous): ")), "{text}");
    assert!(text.contains("anonymous") && !text.contains('\u{1b}'), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("of one core"));
}

#[test]
fn a_line_has_the_form_that_the_documentation_tells() {
    let program = Growing::start("malloc_in_use", &[]);
    let watched = Watched::run(&["--for", "1s", &program.pid().to_string()]);
    let line = watched.lines.last().expect("a line");
    assert!(line["time_s"].is_number() && line["rss_bytes"].is_u64(), "{line}");
    assert_eq!(line["pid"], program.pid());
    let names: Vec<&str> = line["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter_map(|l| l["layer"].as_str())
        .collect();
    for name in [
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
        "memfd_unmapped",
        "swap",
        "page_tables",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let kinds = ["flat", "warming_up", "sawtooth", "step", "growing", "undecided"];
    for layer in line["layers"].as_array().expect("layers") {
        assert!(layer["resident_bytes"].is_u64(), "{layer}");
        assert!(layer["bytes_per_s"].is_number() || layer["bytes_per_s"].is_null(), "{layer}");
        assert!(kinds.contains(&layer["kind"].as_str().expect("a kind")), "{layer}");
        assert!(layer["leak"].is_boolean() || layer["leak"].is_null(), "{layer}");
    }
    let verdict = line["verdict"].as_object().expect("a verdict");
    for key in ["kind", "leak", "layer", "bytes_per_s", "interval", "oom_in_s", "why"] {
        assert!(verdict.contains_key(key), "{key}: {line}");
    }
}

#[test]
fn a_reader_that_does_not_read_keeps_nobody_from_looking() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record");
    let record = record.to_str().expect("a path");
    let program = Growing::start("mmap_anonymous", &[("LAB_RATE", "1000000")]);
    let pid = program.pid().to_string();
    let arguments =
        ["--json", "--every", "0.02", "--budget", "50", "--for", "4s", "--record", record];
    let mut watch = command(&arguments);
    let watch = watch.arg(&pid).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = watch.spawn().expect("plumb runs");
    // A pipe holds 64 KiB: some dozens of lines.
    let unread = watch.stdout.take();
    let output = watch.wait_with_output().expect("it ends");
    drop(unread);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("standard output is not taken in time"), "{errors}");
    let text = std::fs::read_to_string(record).expect("a record");
    let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    assert!(last["last"] == true && last["time_s"].as_f64() > Some(3.0), "{last}");
    assert!(text.len() > 2 * (64 << 10), "{} bytes are no test", text.len());
}

#[test]
fn a_record_on_a_full_disk_is_said_and_the_watch_goes_on() {
    let program = Growing::start("mmap_anonymous", &[]);
    let pid = program.pid().to_string();
    let watched = Watched::run(&["--record", "/dev/full", "--for", "2s", &pid]);
    assert_eq!(watched.status, 1, "{watched:?}");
    assert!(watched.errors.contains("/dev/full: No space left"), "{}", watched.errors);
    assert_eq!(watched.errors.matches("No space").count(), 1, "{}", watched.errors);
    watched.verdict(program.pid().into());
}
