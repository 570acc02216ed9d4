//! `plumb up`, as a person runs it.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use plumb_tests::http::{get, post};
use plumb_tests::models;
use plumb_tests::process::{Process, plumb, wait_for};
use plumb_tests::stack::free_port;
use rustix::process::Signal;
use serde_json::{Value, json};

fn once(args: &[&str]) -> Output {
    Command::new(plumb()).arg("up").args(args).output().expect("plumb runs")
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(tasks).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

fn all_gone(pids: &[u32]) {
    wait_for(&format!("{pids:?} are gone"), Duration::from_secs(40), || {
        let alive = |pid: &u32| {
            // A zombie whose parent was killed is reaped by init, in its own time.
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| !status.contains("State:\tZ"))
        };
        (!pids.iter().any(alive)).then_some(())
    });
}

struct Up {
    process: Process,
    url: String,
}

fn start() -> Up {
    let port = free_port();
    let model = models::smollm();
    let process = Process::plumb(
        "up",
        ["up".as_ref(), model.as_os_str(), "--port".as_ref(), port.to_string().as_ref()],
    );
    let url = format!("http://127.0.0.1:{port}");
    wait_for("up is ready", Duration::from_secs(120), || {
        process.log().contains("ready    http").then_some(())
    });
    Up { process, url }
}

#[test]
fn once_answers_through_both_legs() {
    let model = models::smollm();
    // Port 0 is any free one.
    let output = once(&[model.to_str().expect("utf-8"), "--once", "--json", "--port", "0"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("only JSON on stdout");
    assert!(report["answer"].as_str().expect("text").contains("Paris"), "{report}");
    assert!(report["route"].as_str().expect("text").starts_with("pd"), "{report}");
    assert!(report["pulled_bytes"]["shm"].as_u64() > Some(0), "{report}");
    let processes = report["processes"].as_array().expect("an array");
    assert_eq!(processes.len(), 3, "{report}");
    assert!(processes.iter().all(|p| p["rss_bytes"].as_u64() > Some(1 << 20)), "{report}");
}

#[test]
fn sigterm_takes_all_children() {
    let mut up = start();
    let pids = children(up.process.pid());
    assert_eq!(pids.len(), 3);
    up.process.signal(Signal::TERM);
    assert!(up.process.wait(Duration::from_secs(60)).success(), "{}", up.process.log());
    all_gone(&pids);
}

#[test]
fn its_own_death_takes_all_children() {
    let mut up = start();
    let pids = children(up.process.pid());
    assert_eq!(pids.len(), 3);
    up.process.signal(Signal::KILL);
    up.process.wait(Duration::from_secs(5));
    all_gone(&pids);
}

#[test]
fn what_dies_is_restarted_and_used() {
    let up = start();
    let body = json!({"prompt": "One, two, three, four, five, six, seven, eight, nine, ten, eleven",
                      "max_tokens": 4, "temperature": 0});
    let before = post(&format!("{}/v1/completions", up.url), &body).text();
    let pids = children(up.process.pid());
    let victim = rustix::process::Pid::from_raw(pids[0].cast_signed()).expect("a pid");
    rustix::process::kill_process(victim, Signal::KILL).expect("ours");
    wait_for("said so", Duration::from_secs(10), || {
        up.process.log().contains("starting it again").then_some(())
    });
    wait_for("three children again", Duration::from_secs(30), || {
        (children(up.process.pid()).len() == 3).then_some(())
    });
    wait_for("healthy again, through both legs", Duration::from_secs(60), || {
        let up_again = get(&format!("{}/health", up.url)).is_some_and(|a| a.status == 200);
        let answer = up_again.then(|| post(&format!("{}/v1/completions", up.url), &body))?;
        (answer.status == 200 && answer.text() == before && answer.route.starts_with("pd"))
            .then_some(())
    });
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let model = models::smollm();
    let model = model.to_str().expect("utf-8");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let garbage = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(garbage.path(), "no model at all").expect("written");
    let garbage = garbage.path().to_str().expect("utf-8");
    let cases: [(&[&str], &str); 4] = [
        (&[model, "--port", &port], &format!("port {port} is taken")),
        (&["no/such/file.gguf"], "cannot read the model no/such/file.gguf"),
        (&[garbage], "cannot read the model"),
        (&["hf:nobody/nothing"], "names no model"),
    ];
    for (args, says) in cases {
        let output = once(&[args, &["--once"]].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with("plumb: ") && last.contains(says), "{args:?}: {log}");
    }
}
