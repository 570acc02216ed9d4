//! The peer process: its half and ours.
//!
//! It takes its settings from the environment, then one command a line, and answers one line each.
//! It ends when its standard input does, so none is left behind by a test that dies.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_kv::transfer::{PeerAddress, Refusal, Server, ServerOptions, Transport, Transports};
use plumb_kv::{Leases, Pool, remote_request_id};
use serde::{Deserialize, Serialize};

const SETTINGS: &str = "PLUMB_KV_TEST_PEER";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub pool_name: String,
    pub bind: String,
    pub engine_id: String,
    pub layer_bytes: usize,
    pub windowed: bool,
    pub blocks: usize,
    pub tcp_only: bool,
    pub allow: Vec<IpAddr>,
    pub max_connections: usize,
    pub ttl_ms: u64,
    pub hello_ms: u64,
    pub message_ms: u64,
    pub dtype: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool_name: "kv-test-peer".to_owned(),
            bind: "127.0.0.1:0".to_owned(),
            engine_id: "engine-1".to_owned(),
            layer_bytes: 4096,
            windowed: false,
            blocks: 512,
            tcp_only: false,
            allow: vec!["127.0.0.1".parse().unwrap()],
            max_connections: 16,
            ttl_ms: 30_000,
            hello_ms: 2_000,
            message_ms: 5_000,
            dtype: "f16".to_owned(),
        }
    }
}

/// What the peer counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counts {
    pub used: usize,
    pub leases: usize,
    pub released: u64,
    pub expired: u64,
    pub connections: u64,
    pub served_shm: u64,
    pub served_tcp: u64,
    pub refused: std::collections::BTreeMap<String, u64>,
    pub next_end_ms: Option<u64>,
    pub descriptors: usize,
}

impl Counts {
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.get(refusal.label()).copied().unwrap_or(0)
    }
}

/// Called by each test binary's `as_a_peer` test: becomes the peer if this process was started as one.
pub fn run_if_started_as_one() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Settings = serde_json::from_str(&settings).unwrap();
    let shape = super::shape(settings.layer_bytes, settings.windowed);
    let pool = Pool::new(&settings.pool_name, shape, settings.blocks).unwrap();
    let leases = Leases::new(Duration::from_millis(settings.ttl_ms));
    let mut identity = super::identity();
    identity.dtype = settings.dtype;
    let bind = settings.bind.parse().unwrap();
    let mut options = ServerOptions::new(bind, settings.engine_id, identity);
    options.allow = settings.allow;
    options.max_connections = settings.max_connections;
    options.timeouts.hello = Duration::from_millis(settings.hello_ms);
    options.timeouts.message = Duration::from_millis(settings.message_ms);
    if settings.tcp_only {
        options.transports = Transports::Tcp;
    }
    let server = Server::start(Arc::clone(&pool), Arc::clone(&leases), options).unwrap();
    let start = Instant::now();
    answer(&server.address().to_string());

    let mut granted = 0;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "grant" => {
                let blocks = pool.allocate(argument.parse().unwrap()).unwrap();
                for (at, block) in blocks.iter().enumerate() {
                    super::fill(block, |word| super::pattern(granted, at, word));
                }
                let id = remote_request_id(&format!("cmpl-{granted}-0"));
                leases.grant(&id, blocks, Instant::now()).unwrap();
                granted += 1;
                answer(&id);
            }
            "delete" => answer(&format!("{:?}", leases.release(argument))),
            "counts" => {
                let counts = count(&pool, &leases, &server, start);
                answer(&serde_json::to_string(&counts).unwrap());
            }
            other => panic!("{other:?} is no command"),
        }
    }
}

fn answer(line: &str) {
    // Marked: the test harness writes to standard output too.
    println!("\npeer> {line}");
    std::io::stdout().flush().unwrap();
}

fn count(pool: &Pool, leases: &Leases, server: &Server, start: Instant) -> Counts {
    let lease_counts = leases.counts();
    let served = server.counts();
    Counts {
        used: pool.counts().used,
        leases: lease_counts.leases,
        released: lease_counts.released_total,
        expired: lease_counts.expired_total,
        connections: served.connections(),
        served_shm: served.served_bytes(Transport::Shm),
        served_tcp: served.served_bytes(Transport::Tcp),
        refused: Refusal::ALL.map(|r| (r.label().to_owned(), served.refused(r))).into(),
        next_end_ms: leases.next_end().map(|end| (end - start).as_millis() as u64),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
    }
}

/// Our half: a running peer, killed when dropped.
pub struct Peer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub address: PeerAddress,
    pub engine_id: String,
}

impl Peer {
    pub fn start(settings: &Settings) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), settings)
    }

    /// `command` is this test binary, perhaps behind a wrapper.
    pub fn start_by(mut command: Command, settings: &Settings) -> Self {
        let mut child = command
            .args(["as_a_peer", "--exact", "--nocapture", "--test-threads=1"])
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let address = PeerAddress { host: String::new(), port: 0 };
        let engine_id = settings.engine_id.clone();
        let mut peer = Self { child, commands, answers, address, engine_id };
        peer.address = peer.read().parse().unwrap();
        peer
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the peer is gone: {:?}", self.child.wait());
            if let Some(answer) = line.strip_prefix("peer> ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        self.read()
    }

    /// A lease on `blocks` new blocks, the n-th with [`super::pattern`]`(n, …)`; its name.
    pub fn grant(&mut self, blocks: usize) -> String {
        self.ask(&format!("grant {blocks}"))
    }

    pub fn delete(&mut self, id: &str) -> String {
        self.ask(&format!("delete {id}"))
    }

    pub fn counts(&mut self) -> Counts {
        serde_json::from_str(&self.ask("counts")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.commands.take();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
