//! What the engine does, for `--explain-plan` and `--profile`: logged, or as lines of JSON.

use std::io::Write;

use plumb_engine::limits::Limits;
use plumb_engine::{Engine, OpReport, PlanReport};
use serde_json::{Value, json};

use crate::options::WorkerOptions;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Explain {
    plan: bool,
    profile: bool,
    json: bool,
}

impl Explain {
    pub fn new(options: &WorkerOptions) -> Self {
        Self { plan: options.explain_plan, profile: options.profile, json: options.json }
    }

    /// At the start: every operation and buffer of the plan.
    pub fn plan(self, engine: &Engine) {
        if !self.plan {
            return;
        }
        let report = engine.explain();
        if self.json {
            write(&json!({ "plan": plan(&report) }));
        } else {
            tracing::info!("the engine's plan\n{report}");
        }
    }

    /// At the end: where the time went, against what this core can do at best, which is measured
    /// now: the engine is done.
    pub fn profile(self, engine: &Engine) {
        if !self.profile {
            return;
        }
        let limits = Limits::measure(engine.kernels());
        let report = engine.explain();
        if self.json {
            write(&json!({ "profile": profile(&report, &limits) }));
        } else {
            tracing::info!("where the time went\n{}", report.profile(&limits));
        }
    }
}

fn plan(report: &PlanReport) -> Value {
    let op = |op: &OpReport| {
        json!({
            "name": op.name,
            "macs_per_row": op.macs_per_row,
            "weight_bytes": op.weight_bytes,
            "rows": if op.logit_rows_only { "logits" } else { "all" },
        })
    };
    let buffers = report.buffers.iter().map(|buffer| {
        json!({
            "name": buffer.name,
            "offset": buffer.offset,
            "bytes": buffer.bytes,
            "first_op": buffer.ops.start(),
            "last_op": buffer.ops.end(),
        })
    });
    json!({
        "kernels": report.kernels,
        "threads": report.threads,
        "weight_bytes": report.weight_bytes,
        "arena_bytes": report.arena_bytes,
        "scratch_bytes": report.scratch_bytes,
        "ops": report.ops.iter().map(op).collect::<Vec<_>>(),
        "buffers": buffers.collect::<Vec<_>>(),
    })
}

fn profile(report: &PlanReport, limits: &Limits) -> Value {
    // NaN becomes null: of portable kernels no limit is known.
    let op = |op: &OpReport| {
        json!({
            "name": op.name,
            "time_s": op.done.time.as_secs_f64(),
            "limit_s": op.done.limit(limits, report.threads).as_secs_f64(),
            "int8_macs": op.done.int8_macs,
            "int16_macs": op.done.int16_macs,
            "float_macs": op.done.float_macs,
            "bytes": op.done.bytes,
        })
    };
    json!({
        "kernels": report.kernels,
        "threads": report.threads,
        "limits": {
            "int8_macs_per_s": 1e9 * limits.int8,
            "int16_macs_per_s": 1e9 * limits.int16,
            "float_macs_per_s": 1e9 * limits.float,
            "bytes_per_s": 1e9 * limits.memory,
        },
        "ops": report.by_kind().iter().map(op).collect::<Vec<_>>(),
    })
}

/// A reader that has gone away is no reason to stop serving.
fn write(value: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).ok();
}
