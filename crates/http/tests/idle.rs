//! Ten thousand connections that say nothing, held by a process of their own: one process may not
//! open enough descriptors for both ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use plumb_http::{Limits, bind, serve};
use rustix::process::{Resource, getrlimit, setrlimit};

const IDLE: usize = 10_000;
const TEST: &str = "ten_thousand_idle_connections_do_no_harm";
const ADDRESS: &str = "PLUMB_TEST_IDLE_ADDRESS";

/// The child's part: connects, says so, and holds on until its standard input ends.
fn hold(address: &str) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more open files");
    let held: Vec<TcpStream> =
        (0..IDLE).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    println!("\nholding {}", held.len());
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the end of standard input");
}

fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("one more connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn ten_thousand_idle_connections_do_no_harm() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return hold(&address);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(bind("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        let app = Router::new().route("/", get(async || "still here"));
        serve(listener, app, &Limits::default(), std::future::pending()).await
    });

    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(ADDRESS, &address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    let told =
        output.by_ref().lines().map_while(Result::ok).any(|line| line == format!("holding {IDLE}"));
    assert!(told, "the holder could not connect");

    assert!(ask(&address).ends_with("still here"));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert!(ask(&address).ends_with("still here"), "and after they left");
}
