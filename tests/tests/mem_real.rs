//! `plumb mem` on real programs: the residual is small, and what is known of each is seen.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use plumb_tests::lab::{self, Program};
use plumb_tests::ledger::{self, Ledger, faults};

/// A program that prints a line when it has taken its memory and ends with its input.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| {
                panic!("{command:?} cannot start ({e}): run `make test-packages`")
            });
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n", "{command:?}");
        Self(child)
    }

    fn ledger(&self) -> Ledger {
        let ledger = ledger::of(self.0.id().into());
        assert_eq!(ledger.residual_fault(), None);
        ledger
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn notes(ledger: &Ledger) -> String {
    ledger.json["notes"].to_string()
}

/// A library of this machine, wherever its loader finds libraries.
fn library(name: &str) -> PathBuf {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `make test-packages`"))
}

const TAKEN: i64 = 48 << 20;

#[test]
fn a_jvms_heap_is_anonymous_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("Hold.java");
    let text = "public class Hold { public static void main(String[] a) throws Exception {\n\
        byte[][] held = new byte[48][];\n\
        for (int i = 0; i < 48; i++) { held[i] = new byte[1 << 20]; java.util.Arrays.fill(held[i], (byte) 1); }\n\
        System.out.println(\"up\"); System.in.read(); System.out.println(held.length); } }\n";
    std::fs::write(&source, text).unwrap();
    let running = Running::start(Command::new("java").arg("-Xmx200m").arg(&source));
    let ledger = running.ledger();
    assert!(ledger.layer("anonymous") > TAKEN, "{:?}", ledger.layers);
    assert!(ledger.layer("jit") > 0 && ledger.layer("stacks") > 100 << 10, "{:?}", ledger.layers);
    assert!(ledger.layer("heap_in_use") > 1 << 20 && ledger.layer("code") > 5 << 20);
    assert!(notes(&ledger).contains("JVM"));
}

#[test]
fn nodes_heap_is_anonymous_and_said_so() {
    let script = "const held = []; for (let i = 0; i < 48; i++) held.push(new Array(131072).fill(i + 0.5));\
                  console.log('up'); process.stdin.resume(); globalThis.held = held";
    let running = Running::start(Command::new("node").args(["-e", script]));
    let ledger = running.ledger();
    assert!(ledger.layer("anonymous") > TAKEN, "{:?}", ledger.layers);
    assert!(ledger.layer("code") > 10 << 20);
    assert!(notes(&ledger).contains("V8"));
}

#[test]
fn gos_heap_is_anonymous_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = "package main\nimport (\"fmt\"; \"os\")\nvar held [][]byte\nfunc main() {\n\
        for i := 0; i < 48; i++ { b := make([]byte, 1<<20); for j := range b { b[j] = 1 }; held = append(held, b) }\n\
        fmt.Println(\"up\"); os.Stdin.Read(make([]byte, 1)) }\n";
    std::fs::write(dir.path().join("hold.go"), text).unwrap();
    let built = Command::new("go")
        .args(["build", "-o", "hold", "hold.go"])
        .current_dir(dir.path())
        .env("GOCACHE", dir.path().join("cache"))
        .env("GOFLAGS", "-mod=mod")
        .status()
        .expect("go is not installed: run `make test-packages`");
    assert!(built.success());
    let running = Running::start(&mut Command::new(dir.path().join("hold")));
    let ledger = running.ledger();
    assert!(ledger.layer("anonymous") > TAKEN, "{:?}", ledger.layers);
    assert_eq!(ledger.layer("heap") + ledger.layer("heap_in_use"), 0, "{:?}", ledger.layers);
    assert!(notes(&ledger).contains("Go"));
}

#[test]
fn allocators_that_are_not_split_are_heap() {
    for name in ["libjemalloc.so.2", "libtcmalloc.so.4"] {
        let mut command = Command::new(lab::build().join("malloc_in_use"));
        // What tcmalloc takes by brk stands in a mapping of that name; what it maps does not.
        command.env("LD_PRELOAD", library(name)).env("TCMALLOC_SKIP_SBRK", "1");
        let program = Program::start(command);
        let truth = program.truth["layers"]["heap_in_use"].as_i64().unwrap();
        let ledger = ledger::of(program.pid());
        assert_eq!(ledger.residual_fault(), None, "{name}");
        let heap = ledger.layer("heap");
        assert!(notes(&ledger).contains("is not split"), "{name}: {}", notes(&ledger));
        // The truth counts 8 bytes of header a chunk that these allocators do not have: about 2 %.
        assert!((truth * 94 / 100..truth * 110 / 100).contains(&heap), "{name}: {heap} of {truth}");
        assert!(ledger.layer("anonymous") < 2 << 20, "{name}: {:?}", ledger.layers);
        assert!(
            !ledger.layers.contains_key("heap_in_use"),
            "{name}: unsplit takes the pair's place"
        );
    }
}

#[test]
fn an_allocator_inside_a_stripped_executable_is_heap() {
    let built = lab::make("build/malloc_in_use.jemalloc").join("malloc_in_use.jemalloc");
    let program = Program::start(Command::new(built));
    let truth = program.truth["layers"]["heap_in_use"].as_i64().unwrap();
    let ledger = ledger::of(program.pid());
    assert_eq!(ledger.residual_fault(), None);
    let heap = ledger.layer("heap");
    assert!((truth * 94 / 100..truth * 110 / 100).contains(&heap), "{heap} of {truth}");
    assert!(ledger.layer("anonymous") < 2 << 20, "{:?}", ledger.layers);
}

#[test]
fn a_raw_mapping_beside_another_allocator_is_not_its_heap() {
    for name in ["libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4"] {
        let mut command = Command::new(lab::build().join("mmap_anonymous"));
        command.env("LD_PRELOAD", library(name)).env("TCMALLOC_SKIP_SBRK", "1");
        let program = Program::start(command);
        let ledger = ledger::of(program.pid());
        let mut faults = faults(&program, &ledger, None);
        // The leaf of tcmalloc's tree of pages is 2 MiB and all of it resident.
        faults.retain(|fault| !(name.contains("tcmalloc") && fault.starts_with("heap: 2")));
        assert_eq!(faults, Vec::<String>::new(), "{name}");
    }
}

/// Asserts that what is live and what is kept are told apart as the program's truth has it.
fn assert_split(what: &str, program: &Program) {
    let ledger = ledger::of(program.pid());
    assert_eq!(ledger.residual_fault(), None, "{what}");
    assert_eq!(ledger.layer("heap"), 0, "{what}: {}", notes(&ledger));
    let truth = |layer: &str| program.truth["layers"][layer].as_i64().unwrap_or(0);
    let (live, got) = (truth("heap_in_use"), ledger.layer("heap_in_use"));
    assert!((got - live).abs() <= live / 50 + (128 << 10), "{what}: {got} of {live} is live");
    // What it keeps is at least what was freed; pages in which nothing lives are given back.
    let resident = ledger.layer("heap_retained") + got;
    assert!(resident >= live && resident < 2 * (live + truth("heap_retained")), "{what}");
    assert!(ledger.layer("anonymous") < 1 << 20, "{what}: {:?}", ledger.layers);
}

#[test]
fn heaps_of_musl_and_mimalloc_are_split_by_their_own_records() {
    for name in ["malloc_in_use", "malloc_churn", "malloc_small_freed", "malloc_retained"] {
        let built = lab::make(&format!("build/{name}.musl")).join(format!("{name}.musl"));
        let mut musl = Command::new(built);
        musl.env("LAB_HEADER", "4");
        assert_split(&format!("musl, {name}"), &Program::start(musl));
        let mut mimalloc = Command::new(lab::build().join(name));
        mimalloc.env("LD_PRELOAD", library("libmimalloc.so.2")).env("LAB_HEADER", "0");
        assert_split(&format!("mimalloc, {name}"), &Program::start(mimalloc));
    }
}

#[test]
fn mimalloc_in_a_rust_program_is_split_though_other_threads_free() {
    let program = Command::new(env!("CARGO_BIN_EXE_mimalloc_freed"));
    assert_split("mimalloc 3", &Program::start(program));
}

#[test]
fn what_brk_gave_to_a_program_that_never_called_malloc_is_anonymous() {
    let dir = tempfile::tempdir().unwrap();
    let text = "#define _GNU_SOURCE\n#include <string.h>\n#include <unistd.h>\n\
        int main(void) { char c; memset(sbrk(48 << 20), 1, 48 << 20);\
        return write(1, \"up\\n\", 3) + read(0, &c, 1) < 0; }\n";
    std::fs::write(dir.path().join("raw.c"), text).unwrap();
    let built = Command::new("cc").args(["-o", "raw", "raw.c"]).current_dir(dir.path()).status();
    assert!(built.expect("cc is not installed: run `make test-packages`").success());
    let ledger = Running::start(&mut Command::new(dir.path().join("raw"))).ledger();
    assert!(ledger.layer("anonymous") >= TAKEN, "{:?}", ledger.layers);
    assert_eq!(ledger.layer("heap") + ledger.layer("heap_in_use"), 0, "{:?}", ledger.layers);
}

#[test]
fn raw_mappings_beside_musls_heap_are_anonymous() {
    let built = lab::make("build/mmap_anonymous.musl").join("mmap_anonymous.musl");
    let program = Program::start(Command::new(built));
    let ledger = ledger::of(program.pid());
    assert_eq!(faults(&program, &ledger, None), Vec::<String>::new());
}

/// A PostgreSQL server of our own, on a socket in its folder.
struct Postgres {
    server: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children end when they lose it.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn postgres() -> Postgres {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bin = versions.map(|v| v.path().join("bin")).find(|bin| bin.join("postgres").exists());
    let bin = bin.expect("PostgreSQL is not installed: run `make test-packages`");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let is_root = rustix::process::geteuid().is_root();
    // The server refuses to run as root.
    let command = |program: &str| {
        let mut command = Command::new(bin.join(program));
        if is_root {
            command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(bin.join(program));
        }
        command.current_dir(dir.path());
        command
    };
    if is_root {
        let owned = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
        assert!(owned.success());
    }
    let made =
        command("initdb").args(["--no-sync", "-A", "trust", "-D"]).arg(&data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut server = command("postgres")
        .args([
            "-c",
            "listen_addresses=",
            "-c",
            "shared_buffers=64MB",
            "-c",
            "huge_pages=off",
            "-k",
        ])
        .arg(dir.path())
        .arg("-D")
        .arg(&data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(server.stderr.take().unwrap());
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready to accept connections")), "it is not up");
    // It must not stop at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Postgres { server, _dir: dir }
}

#[test]
fn postgresql_and_its_processes_add_up() {
    let postgres = postgres();
    let output = ledger::run(&["--tree", &postgres.server.id().to_string()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = ledger::ledgers(&json);
    let servers: Vec<&Ledger> = all.iter().filter(|l| l.json["name"] == "postgres").collect();
    assert!(servers.len() >= 5, "{} processes", servers.len());
    for ledger in &servers {
        assert_eq!(ledger.residual_fault(), None);
        assert!(
            ledger.layer("shared") > 0 && ledger.layer("heap_in_use") > 0,
            "{:?}",
            ledger.layers
        );
        assert!(ledger.layer("code") > 1 << 20);
    }
    let rss: i64 = servers.iter().map(|l| l.rss()).sum();
    let pss: i64 = servers.iter().map(|l| l.json["pss_bytes"].as_i64().unwrap()).sum();
    assert!(pss < rss * 3 / 4, "PSS {pss} of RSS {rss}");
    let all_of = |key: &str| all.iter().map(|l| l.json[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!(json["together"]["rss_bytes"], all_of("rss_bytes"));
    assert_eq!(json["together"]["pss_bytes"], all_of("pss_bytes"));
    assert_eq!(json["together"]["processes"], all.len());
}
