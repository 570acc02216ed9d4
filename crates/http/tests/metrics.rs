//! The page as a scraper reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plumb_http::{Metrics, latency_buckets};
use prometheus_client::metrics::counter::Counter;

#[test]
fn the_page_has_what_was_registered_and_what_is_observed() {
    let metrics = Metrics::new();
    let counter = Counter::<u64>::default();
    metrics.register(|r| r.register("vllm:things", "Things", counter.clone()));
    let bytes = Arc::new(AtomicU64::new(1));
    let seen = bytes.clone();
    metrics.observe("plumb_region_bytes", "Sizes", "name", move || {
        vec![("pool".into(), seen.load(Ordering::Relaxed)), ("we\"ird".into(), u64::MAX)]
    });
    counter.inc_by(3);
    bytes.store(4096, Ordering::Relaxed);

    let page = metrics.text().unwrap();
    for line in [
        "# TYPE plumb_region_bytes gauge",
        "plumb_region_bytes{name=\"pool\"} 4096",
        "plumb_region_bytes{name=\"we\\\"ird\"} 9223372036854775807",
        "vllm:things_total 3",
        "# EOF",
    ] {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
}

#[test]
fn buckets_rise() {
    let buckets: Vec<f64> = latency_buckets().collect();
    assert!(buckets.windows(2).all(|w| w[0] < w[1]));
    assert!(buckets[0] < 1.1e-4 && *buckets.last().unwrap() >= 100.0);
}
