//! The metrics page, in `OpenMetrics` text.

use std::fmt::{self, Debug};
use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use plumb_protocol::ApiError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::Refusal;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry behind `/metrics`; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers metrics. A counter's name is given without its `_total`, which the format adds.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock())
    }

    /// A gauge with one label whose values are asked for at each scrape.
    pub fn observe(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) {
        let gauges = Gauges { name, help, label, values: Box::new(values) };
        self.register(|registry| registry.register_collector(Box::new(gauges)));
    }

    /// The page's text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.0.lock())?;
        Ok(page)
    }

    /// The page as an answer.
    pub fn page(&self) -> Response {
        match self.text() {
            Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
            Err(_) => Refusal(ApiError::internal("The metrics cannot be written.")).into_response(),
        }
    }
}

/// Histogram bounds for latencies in seconds, 100 µs to 100 s.
pub fn latency_buckets() -> impl Iterator<Item = f64> {
    (-4..2).flat_map(|decade| [1.0, 2.5, 5.0].map(|step| step * 10_f64.powi(decade))).chain([100.0])
}

struct Gauges {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
}

impl Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (label, value) in (self.values)() {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let labels = [(self.label, escaped(&label))];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A label's value as the format wants it: the encoder writes it as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
