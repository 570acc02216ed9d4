//! `plumb hunt` on heaps beside glibc's: who keeps memory is named, and not who churns, nor the
//! allocator's own functions. Needs root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use plumb_tests::lab;
use plumb_tests::process::{plumb, wait_for};
use serde_json::Value;

/// Who lives for moments only is told by looks within moments: those hunts have the machine for themselves.
static MACHINE: RwLock<()> = RwLock::new(());

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
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    hunt_of(Command::new(program), preload, "heap")
}

/// Hunts a command that is running, on one floor; the report.
fn hunt_of(mut command: Command, preload: Option<&str>, floor: &str) -> Value {
    command.env("LAB_RATE", "4000000").env("LAB_SECONDS", "120");
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let target = Target(command.spawn().expect("starts"));
    hunt_pid(target.0.id(), floor)
}

fn hunt_pid(pid: u32, floor: &str) -> Value {
    let out = Command::new(plumb())
        .args(["hunt", &pid.to_string(), "--for", "12s", "--floor", floor, "--json"])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("a report")
}

/// The first culprit's own function is this one, and it explains most of the growth.
fn assert_keeps(report: &Value, function: &str, what: &str) {
    assert_keeps_in(report, "heap", (function, 0.6), what);
}

/// The same in a layer, and with a share that it has at least.
fn assert_keeps_in(report: &Value, layer: &str, (function, least): (&str, f64), what: &str) {
    let seen = report["verdict"]["layer"].as_str().unwrap_or("none");
    assert!(seen.starts_with(layer), "{what}: {seen}");
    let first = &report["culprits"][0];
    let frames = first["frames"].as_array().expect("a culprit");
    let named =
        frames.iter().any(|f| f["function"].as_str().is_some_and(|f| f.ends_with(function)));
    assert!(named, "{what}: {:#}", report["culprits"]);
    assert!(first["share"].as_f64().is_some_and(|share| share > least), "{what}: {first:#}");
    assert!(first["age_s"].as_f64().is_some_and(|age| age > 2.0), "{what}: {first:#}");
}

/// The first report of three that is certain who is first, or the last: on a starved machine too little is
/// seen.
fn certain_of_three(hunt: impl Fn() -> Value) -> Value {
    (0..2).map(|_| hunt()).find(is_certain).unwrap_or_else(hunt)
}

fn is_certain(report: &Value) -> bool {
    report["may_be_first"] == 1
}

/// Who is certain to be first is right; else whoever it is is one of those that may be, or nobody is named.
fn assert_keeps_or_says(report: &Value, layer: &str, (function, least): (&str, f64), what: &str) {
    if is_certain(report) {
        return assert_keeps_in(report, layer, (function, least), what);
    }
    let culprits = report["culprits"].as_array().expect("a list");
    let may = report["may_be_first"].as_u64().map_or(0, |n| n as usize);
    let is_named = |culprit: &Value| {
        let frames = culprit["frames"].as_array().expect("frames");
        frames.iter().any(|f| f["function"].as_str().is_some_and(|f| f.ends_with(function)))
    };
    let too_few = culprits.is_empty() && report["cost"]["too_few"].is_string();
    assert!(too_few || culprits.iter().take(may).any(is_named), "{what}: {culprits:#?}");
}

#[test]
fn who_keeps_memory_is_named_in_every_allocator() {
    let build = lab::make("build/malloc_churn.musl");
    lab::build();
    let preloads = ["libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc.so.4"];
    thread::scope(|scope| {
        let churn = preloads.map(|library| {
            let program = build.join("malloc_churn");
            let hunt = move || hunt(program.clone(), Some(library));
            (library, scope.spawn(move || certain_of_three(hunt)))
        });
        let musl = build.join("malloc_churn.musl");
        let musl = scope.spawn(move || certain_of_three(|| hunt(musl.clone(), None)));
        let kept = ("keep_session", 0.6);
        for (library, hunt) in churn {
            assert_keeps_or_says(&hunt.join().expect("hunted"), "heap", kept, library);
        }
        assert_keeps_or_says(&musl.join().expect("hunted"), "heap", kept, "musl");
    });
}

/// A program that samples by itself is listened to: nothing else of it is probed.
#[test]
fn a_program_that_tells_of_its_allocations_is_listened_to() {
    let report = hunt(lab::build().join("malloc_sampled"), None);
    assert_keeps(&report, "keep_session", "its own probes");
    let first = &report["culprits"][0];
    let (count, held) = (first["count"].as_u64(), first["outstanding_bytes"].as_u64());
    let size = held.zip(count).map_or(0, |(held, count)| held / count.max(1));
    assert!((1900..2200).contains(&size), "each sample stands for many: {first:#}");
    // Its own samples, one in 64 KiB: bursts on malloc see thousands.
    let sampled = report["cost"]["allocations_sampled"].as_u64().expect("a count");
    let told = 12 * 4_000_000 / 2000 * (2000 + 20 * 4000) / (64 << 10);
    assert!(sampled > 0 && sampled < told * 2, "{sampled} samples, it tells of {told}");
}

/// jemalloc and gperftools write profiles where they are told to: these come first.
#[test]
fn what_an_allocators_own_profiler_wrote_is_read() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let [own, theirs] = ["jemalloc", "gperftools"].map(|name| folder.path().join(name));
    let options = format!("prof:true,lg_prof_interval:22,prof_prefix:{}", own.display());
    let hunt = |library: &str, name: &str, value: &std::ffi::OsStr| {
        let mut command = Command::new(lab::build().join("malloc_churn"));
        command.env(name, value).env("HEAP_PROFILE_INUSE_INTERVAL", "4000000");
        hunt_of(command, Some(library), "heap")
    };
    thread::scope(|scope| {
        let hunts = [
            scope.spawn(|| hunt("libjemalloc.so.2", "MALLOC_CONF", options.as_ref())),
            scope.spawn(|| hunt("libtcmalloc.so.4", "HEAPPROFILE", theirs.as_os_str())),
        ];
        for (hunt, prefix) in hunts.into_iter().zip([&own, &theirs]) {
            let report = hunt.join().expect("hunted");
            let first = &report["culprits"][0];
            let frames = first["frames"].as_array().expect("a culprit");
            assert!(frames.iter().any(|f| f["function"] == "keep_session"), "{report:#}");
            assert!(first["share"].as_f64().is_some_and(|share| share > 0.9), "{first:#}");
            assert!(first["share_error"].is_f64() && first["age_s"].is_null(), "{first:#}");
            let dumps = &report["own_profile"];
            for key in ["first", "last"] {
                let name = dumps[key].as_str().expect("a path");
                assert!(name.starts_with(&prefix.display().to_string()), "{dumps:#}");
            }
            assert!(dumps["seconds"].as_f64().is_some_and(|s| s > 0.5), "{dumps:#}");
        }
    });
}

/// The burst that makes arenas grow is not who fills them, also where the interpreter was built with its
/// allocator inlined, as Debian's is.
#[test]
fn objects_are_charged_to_who_keeps_them() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let debian = "/usr/bin/python3";
    for (interpreter, kind) in [("python3", "slots"), ("python3", "float"), (debian, "str")] {
        let hunt = || {
            let mut command = Command::new(interpreter);
            command.arg(lab::folder().join("py_amid.py")).env("LAB_KIND", kind);
            hunt_of(command, None, "python")
        };
        let report = certain_of_three(hunt);
        assert_keeps_or_says(
            &report,
            "python",
            ("remember", 0.5),
            &format!("{kind} of {interpreter}"),
        );
        if !is_certain(&report) {
            continue;
        }
        let frames = &report["culprits"][0]["frames"];
        let python = frames.as_array().expect("frames").iter().find(|f| f["kind"] == "python");
        let name = python.and_then(|f| f["function"].as_str()).unwrap_or("none");
        let own = ["remember", "Session.__init__", "__init__", "<lambda>"];
        assert!(own.contains(&name), "{name}: {frames:#}");
    }
}

/// Who makes thirty times as many of the same kind keeps none of them, in whose blocks soon lies what stays.
#[test]
fn objects_are_not_charged_to_who_makes_most_of_the_kind() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    for kind in ["str", "dict"] {
        let hunt = || {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(lab::folder().join("py_amid.py"));
            command.env("LAB_KIND", kind).env("LAB_SAME", "30");
            hunt_of(command, None, "python")
        };
        assert_keeps_or_says(&certain_of_three(hunt), "python", ("remember", 0.5), kind);
    }
}

/// What stays is made by an inlined copy of the allocator, and lies where what others make lay until then.
/// Where the kernel cannot probe that many places, nobody is blamed.
#[test]
fn what_a_copy_of_the_allocator_gives_is_not_who_was_there_before() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(lab::folder().join("py_amid.py")).env("LAB_KIND", "concat");
    let report = hunt_of(command, None, "python");
    let seen = report["verdict"]["layer"].as_str().unwrap_or("none");
    assert!(seen.starts_with("python"), "{:#}", report["verdict"]);
    assert_keeps_or_says(&report, "python", ("remember", 0.5), "concat");
}

/// A server under load: each request is read, parsed and answered, and one handler keeps something.
#[test]
fn the_handler_of_a_server_that_keeps_sessions_is_named() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let hunt = || {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(lab::folder().join("py_server.py"));
        hunt_of(command, None, "python")
    };
    let report = certain_of_three(hunt);
    assert_keeps_or_says(&report, "python", ("open_session", 0.4), "a server");
    if !is_certain(&report) {
        return;
    }
    let frames = report["culprits"][0]["frames"].as_array().expect("frames");
    let at = |name: &str| frames.iter().position(|f| f["function"] == name);
    assert!(at("open_session") < at("answer_login"), "{frames:#?}");
    assert!(at("answer_login") < at("serve"), "{frames:#?}");
}

/// Go maps memory on a stack of its runtime's: the goroutine that wanted it is on another.
#[test]
fn memory_of_go_is_charged_to_the_goroutine() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let program = lab::make("build/go_kept").join("go_kept");
    let report = hunt_of(Command::new(program), None, "mappings");
    assert_keeps_in(&report, "anonymous", ("main.keepRequest", 0.6), "Go");
    let frames = report["culprits"][0]["frames"].as_array().expect("frames");
    let at = |name: &str| frames.iter().position(|f| f["function"] == name);
    assert!(at("runtime.systemstack") < at("main.keepRequest"), "{frames:#?}");
    assert!(at("main.keepRequest") < at("main.main"), "{frames:#?}");
}

/// An upgrade puts another file where a library was: who runs still runs the old one.
#[test]
fn a_library_that_was_replaced_meanwhile_is_probed_all_the_same() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("libc.so.6");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let named = |name: &str| {
        let path = maps.lines().filter_map(|l| l.split_whitespace().nth(5));
        path.into_iter().find(|p| p.rsplit('/').next().is_some_and(|f| f.starts_with(name)))
    };
    let (Some(libc), Some(loader)) = (named("libc.so.6"), named("ld-linux")) else { return };
    std::fs::copy(libc, &own).expect("copied");
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(folder.path()).arg(lab::build().join("malloc_churn"));
    command.env("LAB_RATE", "4000000").env("LAB_SECONDS", "120");
    let target =
        Target(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts"));
    wait_for("it has its library", Duration::from_secs(10), || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.0.id())).ok()?;
        maps.contains(own.to_str()?).then_some(())
    });
    std::fs::remove_file(&own).expect("removed");
    std::fs::copy(libc, &own).expect("another file of that name");
    let report = hunt_pid(target.0.id(), "heap");
    assert_keeps(&report, "keep_session", "replaced");
    assert!(report["culprits"][0]["share_error"].is_f64(), "{:#}", report["cost"]);
}
