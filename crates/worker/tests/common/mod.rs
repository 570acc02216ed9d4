//! Real instances on a real model, in this process, and a plain client.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod client;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use plumb_kv::transfer::{PeerAddress, Transports};
use plumb_worker::{Worker, WorkerOptions};
use tokio::runtime::Runtime;

/// Prompt and answer of the tests' instances.
pub const CONTEXT: usize = 512;

/// A running instance; it ends with the test binary.
#[derive(Debug, Clone)]
pub struct Instance {
    pub url: String,
    pub kv: PeerAddress,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

pub fn start(options: WorkerOptions) -> Instance {
    runtime().block_on(async {
        let worker = Worker::start(options, None).await.unwrap();
        let kv = worker.kv_address();
        let kv = PeerAddress { host: kv.ip().to_string(), port: kv.port() };
        let url = format!("http://{}", worker.address().unwrap());
        tokio::spawn(async { worker.serve(std::future::pending()).await.unwrap() });
        Instance { url, kv }
    })
}

/// Small and single-threaded: many of them share the machine.
pub fn options(model: PathBuf) -> WorkerOptions {
    WorkerOptions {
        model_name: Some("tiny".into()),
        threads: Some(1),
        kv_blocks: Some(160),
        context: Some(CONTEXT),
        max_seqs: 8,
        ..WorkerOptions::new(model)
    }
}

/// An instance that computes prompts for [`decode`], and answers whole requests too.
pub fn prefill() -> &'static Instance {
    static PREFILL: OnceLock<Instance> = OnceLock::new();
    PREFILL.get_or_init(|| start(options(smollm())))
}

/// An instance that pulls from [`prefill`] through shared memory.
pub fn decode() -> &'static Instance {
    static DECODE: OnceLock<Instance> = OnceLock::new();
    DECODE.get_or_init(|| start(decode_options(Transports::Shm)))
}

pub fn decode_options(transport: Transports) -> WorkerOptions {
    WorkerOptions {
        kv_peers: vec![prefill().kv.clone()],
        kv_transport: transport,
        ..options(smollm())
    }
}

pub fn smollm() -> PathBuf {
    model("PLUMB_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf")
}

pub fn gemma() -> PathBuf {
    model("PLUMB_TEST_GEMMA", "gemma-3-270m-q4_k_m.gguf")
}

fn model(variable: &str, file: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("PLUMB_CACHE").map(PathBuf::from);
        let root = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models");
        cache.unwrap_or_else(root).join(file)
    });
    assert!(path.exists(), "{} is not there: run `make models`", path.display());
    path
}

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}
