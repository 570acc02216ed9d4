//! What the router counts.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use plumb_http::{Metrics, latency_buckets};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::front::Observed;
use crate::instances::Instance;

type Labels = Vec<(&'static str, String)>;
type Latencies = Family<Labels, Histogram, fn() -> Histogram>;

/// The router's metrics and the page that shows them; clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) page: Metrics,
    states: Family<Labels, Gauge<i64, AtomicI64>>,
    routes: Family<Labels, Counter>,
    answers: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    legs: Latencies,
    first_byte: Histogram,
    added: Histogram,
    leases: Family<Labels, Counter>,
    restarts: Counter,
}

/// A request in one state, until it is dropped.
#[derive(Debug)]
pub(crate) struct InState(Gauge<i64, AtomicI64>);

impl Drop for InState {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn histogram() -> Histogram {
    Histogram::new(latency_buckets())
}

impl Meters {
    pub(crate) fn new<'a>(
        instances: impl Iterator<Item = &'a Arc<Instance>>,
        observed: Observed,
    ) -> Self {
        let meters = Self {
            page: Metrics::new(),
            states: Family::default(),
            routes: Family::default(),
            answers: Family::default(),
            retries: Family::default(),
            failures: Family::default(),
            legs: Family::new_with_constructor(histogram as fn() -> Histogram),
            first_byte: histogram.new_metric(),
            added: histogram.new_metric(),
            leases: Family::default(),
            restarts: Counter::default(),
        };
        meters.register();
        meters.observe_instances(instances.cloned().collect());
        meters.page.observe(
            "plumb_memory_bytes",
            "Resident bytes of this process by layer",
            "layer",
            observed.memory_bytes,
        );
        meters
    }

    fn register(&self) {
        self.page.register(|r| {
            r.register("plumb_requests", "Requests by state", self.states.clone());
            r.register("plumb_router_routes", "Requests by route and reason", self.routes.clone());
            r.register("plumb_router_answers", "Answers by status", self.answers.clone());
            r.register("plumb_router_retries", "Tries after the first", self.retries.clone());
            r.register("plumb_router_leg_failures", "Legs that failed", self.failures.clone());
            r.register("plumb_router_leg_seconds", "Until a leg answered", self.legs.clone());
            r.register(
                "plumb_router_first_byte_seconds",
                "From a request's arrival to the first byte of its answer",
                self.first_byte.clone(),
            );
            r.register(
                "plumb_router_added_seconds",
                "What of that was spent in the router and not in waiting for instances",
                self.added.clone(),
            );
            r.register(
                "plumb_router_leases",
                "KV leases given back, found gone, or stranded until they end",
                self.leases.clone(),
            );
            r.register("plumb_router_restarts", "Instances seen restarted", self.restarts.clone());
        });
    }

    fn observe_instances(&self, instances: Vec<Arc<Instance>>) {
        let all = instances.clone();
        self.page.observe(
            "plumb_router_in_flight",
            "Requests per instance",
            "instance",
            move || all.iter().map(|i| (i.url.clone(), i.in_flight() as u64)).collect(),
        );
        self.page.observe("plumb_router_up", "Whether an instance is up", "instance", move || {
            instances.iter().map(|i| (i.url.clone(), u64::from(i.is_up()))).collect()
        });
    }

    pub(crate) fn enter(&self, state: &'static str) -> InState {
        let gauge = self.states.get_or_create(&vec![("state", state.into())]).clone();
        gauge.inc();
        InState(gauge)
    }

    pub(crate) fn routed(&self, route: &'static str, reason: &'static str) {
        let labels = vec![("route", route.into()), ("reason", reason.into())];
        self.routes.get_or_create(&labels).inc();
    }

    pub(crate) fn answered(&self, status: u16) {
        self.answers.get_or_create(&vec![("status", status.to_string())]).inc();
    }

    pub(crate) fn leg(&self, leg: &'static str, took: Duration) {
        self.legs.get_or_create(&vec![("leg", leg.into())]).observe(took.as_secs_f64());
    }

    pub(crate) fn leg_failed(&self, leg: &'static str, why: &'static str) {
        self.failures.get_or_create(&vec![("leg", leg.into()), ("why", why.into())]).inc();
    }

    pub(crate) fn retried(&self, leg: &'static str) {
        self.retries.get_or_create(&vec![("leg", leg.into())]).inc();
    }

    /// The first byte is there, `total` after the request came, `waited` of it for instances.
    pub(crate) fn first_byte(&self, total: Duration, waited: Duration) {
        self.first_byte.observe(total.as_secs_f64());
        self.added.observe(total.saturating_sub(waited).as_secs_f64());
    }

    pub(crate) fn lease(&self, end: &'static str) {
        self.leases.get_or_create(&vec![("end", end.into())]).inc();
    }

    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }
}
