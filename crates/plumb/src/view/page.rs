//! The latest look of a watch, as OpenMetrics.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use plumb_http::Limits;
use plumb_ledger::watch::Line;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Default)]
struct Latest {
    lines: BTreeMap<u32, Line>,
    cost: f64,
}

/// The page; updated by the watch, read by whoever scrapes.
#[derive(Debug)]
pub struct Page(Arc<Mutex<Latest>>);

impl Page {
    /// Replaces what the page shows; `cost`: of looking, as a share of one core.
    pub fn update<'a>(&self, lines: impl Iterator<Item = &'a Line>, cost: f64) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.lines = lines.map(|line| (line.pid, line.clone())).collect();
        latest.cost = cost;
    }
}

/// Serves the page at `/metrics` of `address`, in the background.
pub async fn serve(address: SocketAddr) -> std::io::Result<Page> {
    let listener = plumb_http::bind(&address.ip().to_string(), address.port()).await?;
    let latest = Arc::<Mutex<Latest>>::default();
    let page = Page(Arc::clone(&latest));
    let answer = move || async move {
        let text = text(&latest.lock().unwrap_or_else(PoisonError::into_inner));
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
    };
    let app = Router::new().route("/metrics", get(answer));
    tokio::spawn(async move {
        plumb_http::serve(listener, app, &Limits::default(), std::future::pending()).await
    });
    Ok(page)
}

/// A judgement as a number: not one while it cannot be told, so that no alarm fires.
fn number(leak: Option<bool>) -> f64 {
    leak.map_or(f64::NAN, |leak| f64::from(u8::from(leak)))
}

fn text(latest: &Latest) -> String {
    let mut page = Families(String::new());
    let lines = || latest.lines.values();
    page.family("plumb_watch_resident_bytes", "bytes", "Resident bytes.");
    for line in lines() {
        page.sample("resident_bytes", line.pid, &[], line.rss_bytes as f64);
    }
    page.family(
        "plumb_watch_leak",
        "",
        "1 for a leak, 0 for none, NaN where it cannot be told yet.",
    );
    for line in lines() {
        let layer = line.verdict.layer.as_deref().unwrap_or("");
        page.sample("leak", line.pid, &[("layer", layer)], number(line.verdict.leak));
    }
    page.family(
        "plumb_watch_oom_seconds",
        "seconds",
        "Seconds until the nearest limit is reached.",
    );
    for line in lines() {
        if let (Some(oom), Some(limit)) = (line.verdict.oom_in_s, &line.verdict.limit) {
            page.sample("oom_seconds", line.pid, &[("limit", limit)], oom);
        }
    }
    let layers = || lines().flat_map(|line| line.layers.iter().map(move |layer| (line.pid, layer)));
    page.family("plumb_watch_layer_bytes", "bytes", "Bytes by layer.");
    for (pid, row) in layers() {
        page.sample("layer_bytes", pid, &[("layer", &row.layer)], row.resident_bytes as f64);
    }
    page.family("plumb_watch_layer_rate", "", "Bytes a second by layer.");
    for (pid, row) in layers() {
        if let Some(rate) = row.bytes_per_s {
            page.sample("layer_rate", pid, &[("layer", &row.layer)], rate);
        }
    }
    page.family(
        "plumb_watch_layer_leak",
        "",
        "1 for a leak, 0 for none, NaN where it cannot be told.",
    );
    for (pid, row) in layers() {
        page.sample("layer_leak", pid, &[("layer", &row.layer)], number(row.leak));
    }
    page.family("plumb_watch_cost_ratio", "ratio", "What looking costs, as a share of one core.");
    let _infallible = writeln!(page.0, "plumb_watch_cost_ratio {}", latest.cost);
    page.0 + "# EOF\n"
}

struct Families(String);

impl Families {
    fn family(&mut self, name: &str, unit: &str, help: &str) {
        let _infallible = writeln!(self.0, "# TYPE {name} gauge");
        if !unit.is_empty() {
            let _infallible = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _infallible = writeln!(self.0, "# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, pid: u32, labels: &[(&str, &str)], value: f64) {
        let _infallible = write!(self.0, "plumb_watch_{name}{{pid=\"{pid}\"");
        for (label, text) in labels {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _infallible = write!(self.0, ",{label}=\"{text}\"");
        }
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        let _infallible = writeln!(self.0, "}} {value}");
    }
}
