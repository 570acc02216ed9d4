//! What is counted: under Plumb's names, and under vLLM's where it has one of the same meaning.

mod gauges;

use std::time::{Duration, Instant};

use plumb_http::{Metrics as Page, latency_buckets};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use gauges::register as register_gauges;

use crate::driver::Job;
use crate::generation::Finish;
use crate::scheduler::Census;

type Label = [(&'static str, &'static str); 1];

/// The counters that the engine's thread keeps.
#[derive(Debug)]
pub struct Metrics {
    running: Gauge,
    waiting: Gauge,
    pulling: Gauge,
    preempted: Counter,
    finished: Family<Label, Counter>,
    prompt_tokens: Counter,
    prompt_by_source: Family<Label, Counter>,
    vllm_prompt_by_source: Family<Label, Counter>,
    prefix_hits: Counter,
    generation_tokens: Counter,
    first_token: Histogram,
    inter_token: Histogram,
    whole: Histogram,
    steps: Counter,
    step_tokens: Counter,
    step_seconds: Histogram,
}

const ARRIVAL_TO_FIRST: &str = "From a request's arrival to its first token";
const BETWEEN_TOKENS: &str = "Between two tokens of an answer";
const ARRIVAL_TO_LAST: &str = "From a request's arrival to its last token";
const BY_SOURCE: &str = "Tokens of prompts, by where their KV came from";

fn histogram() -> Histogram {
    Histogram::new(latency_buckets())
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            running: Gauge::default(),
            waiting: Gauge::default(),
            pulling: Gauge::default(),
            preempted: Counter::default(),
            finished: Family::default(),
            prompt_tokens: Counter::default(),
            prompt_by_source: Family::default(),
            vllm_prompt_by_source: Family::default(),
            prefix_hits: Counter::default(),
            generation_tokens: Counter::default(),
            first_token: histogram(),
            inter_token: histogram(),
            whole: histogram(),
            steps: Counter::default(),
            step_tokens: Counter::default(),
            step_seconds: histogram(),
        }
    }
}

impl Metrics {
    /// Puts them on a page.
    pub fn register_on(&self, page: &Page) {
        page.register(|registry| self.register(registry));
    }

    fn register(&self, registry: &mut Registry) {
        let r = registry;
        // So that the page has them from the start.
        self.prompt(0, 0, 0);
        for (name, help, histogram) in [
            ("plumb_first_token_seconds", ARRIVAL_TO_FIRST, &self.first_token),
            ("vllm:time_to_first_token_seconds", ARRIVAL_TO_FIRST, &self.first_token),
            ("plumb_inter_token_seconds", BETWEEN_TOKENS, &self.inter_token),
            ("vllm:inter_token_latency_seconds", BETWEEN_TOKENS, &self.inter_token),
            ("plumb_answer_seconds", ARRIVAL_TO_LAST, &self.whole),
            ("vllm:e2e_request_latency_seconds", ARRIVAL_TO_LAST, &self.whole),
            ("plumb_engine_step_seconds", "Time of a step of the engine", &self.step_seconds),
        ] {
            r.register(name, help, histogram.clone());
        }
        for (name, help, counter) in [
            (
                "vllm:num_preemptions",
                "Sequences that had to give their blocks back",
                &self.preempted,
            ),
            ("vllm:prompt_tokens", "Tokens of prompts", &self.prompt_tokens),
            ("vllm:generation_tokens", "Tokens generated", &self.generation_tokens),
            ("plumb_generation_tokens", "Tokens generated", &self.generation_tokens),
            ("vllm:prefix_cache_queries", "Prompt tokens looked for", &self.prompt_tokens),
            ("vllm:prefix_cache_hits", "Prompt tokens found in the pool", &self.prefix_hits),
            ("plumb_engine_steps", "Steps computed", &self.steps),
            ("plumb_engine_step_tokens", "Tokens computed", &self.step_tokens),
        ] {
            r.register(name, help, counter.clone());
        }
        for (name, help, family) in [
            ("vllm:request_success", "Answers that ended", &self.finished),
            ("plumb_prompt_tokens", BY_SOURCE, &self.prompt_by_source),
            ("vllm:prompt_tokens_by_source", BY_SOURCE, &self.vllm_prompt_by_source),
        ] {
            r.register(name, help, family.clone());
        }
        r.register("vllm:num_requests_running", "Sequences in the batch", self.running.clone());
        r.register("vllm:num_requests_waiting", "Sequences that wait", self.waiting.clone());
    }

    /// Sequences by state now: running, waiting, pulling.
    pub fn requests(&self) -> [(&'static str, i64); 3] {
        [
            ("running", self.running.get()),
            ("waiting", self.waiting.get()),
            ("pulling", self.pulling.get()),
        ]
    }

    /// Where the sequences are, after a plan was made.
    pub fn census(&self, census: Census) {
        let as_gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.running.set(as_gauge(census.running));
        self.waiting.set(as_gauge(census.waiting));
        self.pulling.set(as_gauge(census.pulling));
        let seen = self.preempted.get();
        self.preempted.inc_by(census.preempted_total.saturating_sub(seen));
    }

    /// A step was computed.
    pub fn stepped(&self, took: Duration, tokens: usize) {
        self.steps.inc();
        self.step_tokens.inc_by(tokens as u64);
        self.step_seconds.observe(took.as_secs_f64());
    }

    /// A prompt's KV is complete; the rest of `tokens` was computed.
    pub fn prompt(&self, tokens: usize, cached: usize, pulled: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
        self.prefix_hits.inc_by(cached as u64);
        let computed = tokens.saturating_sub(cached + pulled);
        for (plumb, vllm, count) in [
            ("computed", "local_compute", computed),
            ("cached", "local_cache_hit", cached),
            ("pulled", "external_kv_transfer", pulled),
        ] {
            self.prompt_by_source.get_or_create(&[("source", plumb)]).inc_by(count as u64);
            self.vllm_prompt_by_source.get_or_create(&[("source", vllm)]).inc_by(count as u64);
        }
    }

    /// A job got a token.
    pub fn token(&self, job: &mut Job, now: Instant) {
        self.generation_tokens.inc();
        match job.token_at.replace(now) {
            None => self.first_token.observe((now - job.shared.arrived).as_secs_f64()),
            Some(before) => self.inter_token.observe((now - before).as_secs_f64()),
        }
    }

    /// An answer is complete.
    pub fn finished(&self, took: Duration, finish: Finish) {
        self.whole.observe(took.as_secs_f64());
        let reason = if finish == Finish::Length { "length" } else { "stop" };
        self.finished.get_or_create(&[("finished_reason", reason)]).inc();
    }

    /// A client left before its answer's end.
    pub fn aborted(&self) {
        self.finished.get_or_create(&[("finished_reason", "abort")]).inc();
    }
}
