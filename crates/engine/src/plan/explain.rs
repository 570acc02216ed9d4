//! The plan for people: what each operation costs, and where the time of steps went.

use super::op::{Kind, NormOf, Op, RowSet};
use super::{Plan, place::Buffer};
use crate::model::Model;
use std::fmt;
use std::time::Duration;

/// One operation of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpReport {
    /// What it does, and in which layer.
    pub name: String,
    /// Multiply-accumulates for one row, attention's apart: that depends on the context.
    pub macs_per_row: u64,
    /// Bytes of weights that it reads once a step.
    pub weight_bytes: u64,
    /// Whether it runs on the rows that need logits alone.
    pub logit_rows_only: bool,
    /// Wall time in all steps so far; zero unless the engine profiles.
    pub time: Duration,
}

/// One buffer of the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferReport {
    /// What it holds.
    pub name: &'static str,
    /// Byte offset in the arena.
    pub offset: usize,
    /// Its bytes.
    pub bytes: usize,
    /// Operations from the first that writes it to the last that reads it.
    pub ops: std::ops::RangeInclusive<usize>,
}

/// A plan, to be printed or measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanReport {
    /// The operations in order.
    pub ops: Vec<OpReport>,
    /// The buffers in order of their first use.
    pub buffers: Vec<BufferReport>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes of a thread's own memory, for attention.
    pub scratch_bytes: usize,
    /// Bytes of the packed weight matrices.
    pub weight_bytes: usize,
    /// The name of the kernels.
    pub kernels: &'static str,
}

pub(crate) fn ops(plan: &Plan, model: &Model, times: &[Duration]) -> Vec<OpReport> {
    let time = |i: usize| times.get(i).copied().unwrap_or_default();
    plan.ops.iter().enumerate().map(|(i, op)| report(op, model, time(i))).collect()
}

pub(crate) fn buffers(plan: &Plan) -> Vec<BufferReport> {
    let report = |buffer: &Buffer| BufferReport {
        name: buffer.name,
        offset: buffer.offset,
        bytes: buffer.bytes,
        ops: buffer.first..=buffer.last,
    };
    let mut buffers: Vec<_> = plan.buffers.iter().map(report).collect();
    buffers.sort_by_key(|buffer| *buffer.ops.start());
    buffers
}

fn report(op: &Op, model: &Model, time: Duration) -> OpReport {
    let (mut macs_per_row, mut weight_bytes) = (0, 0);
    if let Kind::Multiply { products, .. } = &op.kind {
        for product in products {
            let shape = model.weights().matrix(product.matrix).shape();
            macs_per_row += shape.macs();
            weight_bytes += shape.packed_bytes() as u64;
        }
    }
    let logit_rows_only = op.rows == RowSet::Logits;
    OpReport { name: name(op), macs_per_row, weight_bytes, logit_rows_only, time }
}

fn name(op: &Op) -> String {
    match &op.kind {
        Kind::Turns { .. } => "turns of positions".into(),
        Kind::Embed { .. } => "embed".into(),
        Kind::Norm { of: NormOf::Attention(layer), .. } => format!("{layer} norm, quantise"),
        Kind::Norm { of: NormOf::Ffn(layer), .. } => format!("{layer} ffn norm, quantise"),
        Kind::Norm { of: NormOf::Output, .. } => "output norm, quantise".into(),
        Kind::Multiply { label, .. } => label.clone(),
        Kind::Heads { layer, .. } => format!("{layer} turn heads, store k v"),
        Kind::Attend { layer, .. } => format!("{layer} attend"),
        Kind::Gather { .. } => "gather logit rows".into(),
        Kind::Quantise { .. } => "quantise".into(),
        Kind::Gate { .. } => "gate, quantise".into(),
    }
}

impl PlanReport {
    /// Operations of the same kind in all layers added up, in the order of the first of each.
    #[must_use]
    pub fn by_kind(&self) -> Vec<OpReport> {
        let mut sums: Vec<OpReport> = Vec::new();
        for op in &self.ops {
            let kind = op.name.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
            match sums.iter_mut().find(|sum| sum.name == kind) {
                Some(sum) => {
                    sum.macs_per_row += op.macs_per_row;
                    sum.weight_bytes += op.weight_bytes;
                    sum.time += op.time;
                }
                None => sums.push(OpReport { name: kind.to_owned(), ..op.clone() }),
            }
        }
        sums
    }

    /// A table of where the time went, by kind of operation, against the multiply-accumulates and
    /// the weights of `rows` rows in `steps` steps.
    #[must_use]
    pub fn profile(&self, rows: u64, steps: u64) -> String {
        use fmt::Write;
        let all: Duration = self.ops.iter().map(|op| op.time).sum();
        let mut out = format!(
            "{:<28} {:>9} {:>6} {:>8} {:>7}\n",
            "operation", "ms", "share", "GMAC/s", "GB/s"
        );
        for op in self.by_kind() {
            let seconds = op.time.as_secs_f64();
            let share = seconds / all.as_secs_f64().max(1e-12);
            let rate = |amount: u64| amount as f64 / seconds.max(1e-12) / 1e9;
            let (mut macs, mut bytes) = (String::new(), String::new());
            if op.macs_per_row > 0 && !op.logit_rows_only {
                macs = format!("{:.1}", rate(op.macs_per_row * rows));
            }
            if op.weight_bytes > 0 {
                bytes = format!("{:.1}", rate(op.weight_bytes * steps));
            }
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{:<28} {:>9.3} {:>5.1}% {macs:>8} {bytes:>7}",
                op.name,
                seconds * 1e3,
                share * 100.0
            );
        }
        out
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernels        {}", self.kernels)?;
        writeln!(f, "weights        {:>12} bytes", self.weight_bytes)?;
        writeln!(f, "arena          {:>12} bytes", self.arena_bytes)?;
        writeln!(f, "thread scratch {:>12} bytes each", self.scratch_bytes)?;
        writeln!(
            f,
            "\n{:>4}  {:<28} {:>14} {:>14}  rows",
            "op", "does", "MACs a row", "weight bytes"
        )?;
        for (i, op) in self.ops.iter().enumerate() {
            let rows = if op.logit_rows_only { "logits" } else { "all" };
            writeln!(
                f,
                "{i:>4}  {:<28} {:>14} {:>14}  {rows}",
                op.name, op.macs_per_row, op.weight_bytes
            )?;
        }
        writeln!(f, "\n{:>10}  {:>10}  {:<9}  buffer", "offset", "bytes", "ops")?;
        for buffer in &self.buffers {
            let ops = format!("{}-{}", buffer.ops.start(), buffer.ops.end());
            writeln!(f, "{:>10}  {:>10}  {ops:<9}  {}", buffer.offset, buffer.bytes, buffer.name)?;
        }
        Ok(())
    }
}
