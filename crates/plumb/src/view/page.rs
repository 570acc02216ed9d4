//! The latest look of a watch, as OpenMetrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::get;
use plumb_http::{Limits, Metrics};
use plumb_ledger::watch::Line;

type Latest = Arc<Mutex<BTreeMap<u32, Line>>>;

/// The page; updated by the watch, read by whoever scrapes.
#[derive(Debug)]
pub struct Page(Latest);

impl Page {
    /// Replaces what the page shows of these processes.
    pub fn update(&self, lines: &[Line]) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|pid, _| lines.iter().any(|line| line.pid == *pid));
        latest.extend(lines.iter().map(|line| (line.pid, line.clone())));
    }
}

/// Serves the page at `/metrics` of `address`, in the background.
pub async fn serve(address: SocketAddr) -> std::io::Result<Page> {
    let listener = plumb_http::bind(&address.ip().to_string(), address.port()).await?;
    let latest = Latest::default();
    let metrics = Metrics::new();
    let add = |name, help, label, value: fn(&Line) -> Vec<(String, u64)>| {
        let latest = Arc::clone(&latest);
        metrics.observe(name, help, label, move || {
            let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.values().flat_map(value).collect()
        });
    };
    add("plumb_watch_resident_bytes", "Resident bytes", "pid", |line| {
        vec![(line.pid.to_string(), line.rss_bytes)]
    });
    add("plumb_watch_leak", "1 for a leak", "pid", |line| {
        vec![(line.pid.to_string(), u64::from(line.verdict.leak == Some(true)))]
    });
    add("plumb_watch_layer_bytes", "Bytes by layer, as pid/layer", "layer", |line| {
        let name = |layer: &str| format!("{}/{layer}", line.pid);
        line.layers.iter().map(|l| (name(&l.layer), l.resident_bytes)).collect()
    });
    let app = Router::new().route("/metrics", get(move || async move { metrics.page() }));
    tokio::spawn(async move {
        plumb_http::serve(listener, app, &Limits::default(), std::future::pending()).await
    });
    Ok(Page(latest))
}
