//! What is read when somebody asks: blocks, leases, transfers, memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use plumb_http::Metrics as Page;
use plumb_kv::transfer::{Refusal, Transport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::instance::Instance;
use crate::memory;

/// Puts an instance's state on its page.
pub fn register(page: &Page, instance: &Arc<Instance>) {
    page.register(|registry| {
        registry.register_collector(Box::new(State(Arc::clone(instance))));
    });
    page.observe("plumb_region_bytes", "Named shared memory of ours", "name", || {
        plumb_region::all().into_iter().map(|region| (region.name, region.bytes as u64)).collect()
    });
    let layers = Arc::clone(instance);
    page.observe("plumb_memory_bytes", "Resident bytes by layer", "layer", move || {
        (layers.memory)()
    });
}

/// Reads an instance at each scrape.
#[derive(Debug)]
struct State(Arc<Instance>);

/// One scrape.
struct Scrape<'a>(DescriptorEncoder<'a>);

type Result = std::result::Result<(), std::fmt::Error>;

impl Collector for State {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut scrape = Scrape(encoder);
        scrape.blocks(&self.0)?;
        scrape.leases(&self.0)?;
        scrape.transfers(&self.0)?;
        scrape.process(&self.0)
    }
}

impl Scrape<'_> {
    fn blocks(&mut self, instance: &Instance) -> Result {
        let counts = instance.pool.counts();
        let leased = instance.leases.counts().blocks;
        let states = [
            ("free", counts.free as f64),
            ("cached", counts.cached as f64),
            ("used", counts.used as f64),
            ("leased", leased as f64),
        ];
        self.gauges(
            "plumb_kv_blocks",
            "KV blocks; the leased are among the used",
            "state",
            &states,
        )?;
        self.gauge(
            "plumb_kv_pool_filled",
            "1 once the KV pool has all its memory, which is taken beside the first requests",
            f64::from(u8::from(instance.pool.is_filled())),
        )?;
        let all = counts.free + counts.cached + counts.used;
        self.gauge(
            "vllm:kv_cache_usage_perc",
            "Share of KV blocks in use",
            counts.used as f64 / all as f64,
        )?;
        self.counter(
            "plumb_kv_evicted_blocks",
            "Cached blocks whose room was taken",
            counts.evicted_total,
        )
    }

    fn leases(&mut self, instance: &Instance) -> Result {
        let counts = instance.leases.counts();
        self.gauge("plumb_kv_leases", "Leases that wait for a peer", counts.leases as f64)?;
        self.counter("plumb_kv_leases_expired", "Leases that ended by time", counts.expired_total)?;
        self.counter("plumb_kv_leases_granted", "Leases granted", counts.granted_total)?;
        self.counter(
            "plumb_kv_leases_released",
            "Leases ended by their peer",
            counts.released_total,
        )?;
        self.counter(
            "vllm:nixl_num_kv_expired_reqs",
            "Leases that ended by time",
            counts.expired_total,
        )
    }

    fn transfers(&mut self, instance: &Instance) -> Result {
        let pulls = instance.puller.counts();
        let by_transport = |count: &dyn Fn(Transport) -> u64| {
            Transport::ALL.map(|transport| (transport.label(), count(transport)))
        };
        let bytes = by_transport(&|t| pulls.bytes(t));
        self.counters("plumb_kv_pulled_bytes", "KV bytes pulled from peers", "transport", &bytes)?;
        let done = by_transport(&|t| pulls.pulls(t));
        self.counters("plumb_kv_pulls", "Pulls that ended well", "transport", &done)?;
        let failed: Vec<_> = pulls.failed().collect();
        self.counters("plumb_kv_pulls_failed", "Pulls that failed", "reason", &failed)?;
        let total = bytes.iter().map(|(_, n)| n).sum();
        self.counter("vllm:nixl_bytes_transferred", "KV bytes pulled from peers", total)?;
        let served = instance.server.counts();
        let bytes = by_transport(&|t| served.served_bytes(t));
        self.counters("plumb_kv_served_bytes", "KV bytes given to peers", "transport", &bytes)?;
        let refused = Refusal::ALL.map(|why| (why.label(), served.refused(why)));
        self.counters("plumb_kv_refused", "Peers' requests refused", "reason", &refused)?;
        self.gauge("plumb_kv_connections", "Peers connected", served.connections() as f64)
    }

    fn process(&mut self, instance: &Instance) -> Result {
        let states = instance.metrics.requests().map(|(state, n)| (state, n as f64));
        self.gauges("plumb_requests", "Sequences by state", "state", &states)?;
        let open = instance.in_flight.load(Ordering::Relaxed) as f64;
        self.gauge("plumb_requests_in_flight", "Generations whose client still waits", open)?;
        self.gauge(
            "plumb_rss_bytes",
            "Resident bytes of this process",
            memory::rss_bytes() as f64,
        )?;
        self.gauge("plumb_open_descriptors", "Open descriptors", memory::descriptors() as f64)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, number) in values {
            ConstGauge::new(*number).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, number) in values {
            ConstCounter::new(*number).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
}
