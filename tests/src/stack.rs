//! A router with prefill and decode instances, each a process of its own.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::http;
use crate::process::{Process, wait_for};

/// First starts repack the weights, and two tests may do so at once.
const READY: Duration = Duration::from_secs(120);

/// A free port of loopback.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("bound").port()
}

/// One worker.
#[derive(Debug)]
pub struct Instance {
    /// The process.
    pub process: Process,
    /// Base URL.
    pub url: String,
    /// `host:port` of its KV side channel.
    pub kv: String,
    args: Vec<String>,
    name: String,
}

impl Instance {
    /// Starts a worker with any further flags and waits until it is healthy.
    pub fn start(role: &str, model: &Path, more: &[&str]) -> Self {
        let (port, kv) = (free_port(), free_port());
        let mut args: Vec<String> = ["worker", "--role", role, "--host", "127.0.0.1"]
            .iter()
            .chain(&["--kv-host", "127.0.0.1", "--threads", "1"])
            .map(|&s| s.to_owned())
            .collect();
        args.extend(["--model".into(), model.display().to_string()]);
        args.extend(["--port".into(), port.to_string(), "--kv-port".into(), kv.to_string()]);
        args.extend(more.iter().map(|&s| s.to_owned()));
        let process = Process::plumb(role, &args);
        let instance = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            kv: format!("127.0.0.1:{kv}"),
            args,
            name: role.into(),
        };
        instance.wait_healthy();
        instance
    }

    /// Waits for `/health` to be 200.
    pub fn wait_healthy(&self) {
        healthy(&self.name, &self.url, &self.process);
    }

    /// Waits until its KV pool has all its memory, which it takes beside the first requests.
    pub fn wait_filled(&self) {
        wait_for("the pool is filled", READY, || {
            (self.metric("plumb_kv_pool_filled") == 1.0).then_some(())
        });
    }

    /// Starts it again with the same flags, after its end.
    pub fn restart(&mut self) {
        self.process = Process::plumb(&self.name, &self.args);
        self.wait_healthy();
    }

    /// A sample of its metrics page; 0 where the page has no such line.
    pub fn metric(&self, sample: &str) -> f64 {
        metric(&self.url, sample)
    }
}

fn healthy(name: &str, url: &str, process: &Process) {
    wait_for(&format!("{name} healthy"), READY, || {
        let up = http::get(&format!("{url}/health")).is_some_and(|a| a.status == 200);
        let gone = !Path::new(&format!("/proc/{}/exe", process.pid())).exists();
        assert!(!gone, "{name} ended:\n{}", process.log());
        up.then_some(())
    });
}

/// The value of the sample whose name and labels are exactly `sample`.
pub fn metric(url: &str, sample: &str) -> f64 {
    let page = http::get(&format!("{url}/metrics")).map(|a| a.body).unwrap_or_default();
    page.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| *name == sample)
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// Router, prefill and decode instances.
#[derive(Debug)]
pub struct Stack {
    /// The router.
    pub router: Process,
    /// The router's base URL.
    pub url: String,
    /// Prefill instances.
    pub prefill: Vec<Instance>,
    /// Decode instances.
    pub decode: Vec<Instance>,
}

impl Stack {
    /// One prefill instance, one decode instance, and the router before them.
    pub fn start(model: &Path, transport: &str) -> Self {
        Self::with(model, 1, 1, &["--kv-transport", transport], &[])
    }

    /// Any numbers of instances, with further flags for the workers and for the router.
    pub fn with(
        model: &Path,
        prefill: usize,
        decode: usize,
        worker: &[&str],
        router: &[&str],
    ) -> Self {
        let prefill: Vec<_> =
            (0..prefill).map(|_| Instance::start("prefill", model, worker)).collect();
        let mut more = worker.to_vec();
        more.push("--kv-peer");
        more.extend(prefill.iter().map(|p| p.kv.as_str()));
        let decode: Vec<_> = (0..decode).map(|_| Instance::start("decode", model, &more)).collect();
        let port = free_port().to_string();
        let mut args = vec!["router", "--host", "127.0.0.1", "--port", &port, "--prefill"];
        args.extend(prefill.iter().map(|p| p.url.as_str()));
        args.push("--decode");
        args.extend(decode.iter().map(|d| d.url.as_str()));
        args.extend(router);
        let router = Process::plumb("router", &args);
        let url = format!("http://127.0.0.1:{port}");
        healthy("router", &url, &router);
        let stack = Self { router, url, prefill, decode };
        stack.wait_up();
        stack
    }

    /// Waits until the router sees every instance up. It is healthy sooner: decode alone can
    /// serve, and a first request would then not go the way that is tested.
    fn wait_up(&self) {
        for instance in self.prefill.iter().chain(&self.decode) {
            let up = format!("plumb_router_up{{instance=\"{}\"}}", instance.url);
            wait_for(&format!("{} is up", instance.url), READY, || {
                (metric(&self.url, &up) == 1.0).then_some(())
            });
        }
    }

    /// A URL of the router.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}
