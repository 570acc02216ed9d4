//! Peers that record what they are sent and answer what they are told to, byte by byte; a router
//! in front of them; a client.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod client;
pub mod peer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plumb_router::{Observed, Options, Settings};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use peer::Peer;

/// More than anything here takes, and less than a person waits.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Router {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

impl Router {
    /// Tells it to stop.
    pub fn stop(&mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("it runs");
    }

    /// Waits until it has ended.
    pub async fn ended(self) {
        tokio::time::timeout(SOON, self.ended).await.expect("the router ends").unwrap();
    }

    /// The value of one metric line; 0 where there is none.
    pub async fn metric(&self, line: &str) -> f64 {
        let page = client::get(self.address, "/metrics").await.text();
        let value = page.lines().find_map(|l| l.strip_prefix(line));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub async fn wait_metric(&self, line: &str, value: f64) {
        let reached = async { while self.metric(line).await != value {} };
        let reached = tokio::time::timeout(SOON, reached).await;
        assert!(reached.is_ok(), "{line} is {} and not {value}", self.metric(line).await);
    }
}

pub fn settings(prefill: &[&Peer], decode: &[&Peer]) -> Settings {
    let urls = |peers: &[&Peer]| Some(peers.iter().map(|p| p.url()).collect());
    Settings { prefill: urls(prefill), decode: urls(decode), ..Settings::default() }
}

/// A router with these settings, once it has seen `up` of its instances up.
pub async fn router(settings: Settings, up: usize) -> Router {
    let options: Options = settings.options().unwrap();
    let urls: Vec<String> = options
        .prefill
        .iter()
        .chain(&options.decode)
        .map(|uri| uri.to_string().trim_end_matches('/').to_owned())
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(plumb_router::serve(listener, options, Observed::default(), async {
        // A dropped sender is a test that is over, not a stop.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    let router = Router { address, stop: Some(stop), ended };
    let all_up = async {
        loop {
            let mut seen = 0.0;
            for url in &urls {
                seen += router.metric(&format!("plumb_router_up{{instance=\"{url}\"}}")).await;
            }
            if seen as usize >= up {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, all_up).await.expect("instances are seen up");
    router
}

pub fn recorded(version: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/nixl-protocol")
        .join(version)
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

/// The request whose legs were recorded, as its client sent it.
pub fn short_request(version: &str) -> Value {
    let mut request = json(&recorded(version, "completion_short.decode.request.json"));
    request.as_object_mut().unwrap().remove("kv_transfer_params");
    request
}
