//! The plan for people: what each operation costs, and where the time of steps went.

use super::op::{Kind, NormOf, Op, RowSet};
use super::{Plan, place::Buffer};
use crate::limits::Limits;
use crate::model::{KvType, Model};
use std::fmt;
use std::ops::AddAssign;
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
    /// What it has done in all steps so far; zero unless the engine profiles.
    pub done: Done,
}

/// What an operation has done, and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Wall time.
    pub time: Duration,
    /// Multiply-accumulates of bytes.
    pub int8_macs: u64,
    /// Those of 16-bit integers, of attention.
    pub int16_macs: u64,
    /// Those of floats.
    pub float_macs: u64,
    /// Bytes of weights and of keys and values, each counted once a step that reads them.
    pub bytes: u64,
}

impl Done {
    /// The time that it could not have taken less than, on so many cores.
    #[must_use]
    pub fn limit(&self, limits: &Limits, threads: usize) -> Duration {
        let seconds = |amount: u64, rate: f64| amount as f64 / (rate * 1e9) / threads as f64;
        let arithmetic: f64 = [
            (self.int8_macs, limits.int8),
            (self.int16_macs, limits.int16),
            (self.float_macs, limits.float),
        ]
        .into_iter()
        .map(|(macs, rate)| seconds(macs, rate))
        .sum();
        let memory = seconds(self.bytes, limits.memory);
        // The limits of portable kernels are not known.
        Duration::try_from_secs_f64(if arithmetic > memory { arithmetic } else { memory })
            .unwrap_or_default()
    }
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.int8_macs += other.int8_macs;
        self.int16_macs += other.int16_macs;
        self.float_macs += other.float_macs;
        self.bytes += other.bytes;
    }
}

/// What steps were asked for, as the engine counts when it profiles.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) steps: u64,
    pub(crate) rows: u64,
    pub(crate) steps_with_logits: u64,
    pub(crate) logit_rows: u64,
    /// Of attention in a layer, by whether it has a window: pairs of a query and a key that it
    /// sees, and positions read.
    pub(crate) seen: [Seen; 2],
}

/// What attention saw in one layer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) pairs: u64,
    pub(crate) positions: u64,
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
    /// Threads that compute.
    pub threads: usize,
}

pub(crate) fn ops(
    plan: &Plan,
    model: &Model,
    times: &[Duration],
    asked: &Asked,
    kv: KvType,
) -> Vec<OpReport> {
    let report = |(i, op)| {
        let mut report = report(op, model, asked, kv);
        report.done.time = times.get(i).copied().unwrap_or_default();
        report
    };
    plan.ops.iter().enumerate().map(report).collect()
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

fn report(op: &Op, model: &Model, asked: &Asked, kv: KvType) -> OpReport {
    let (mut macs_per_row, mut weight_bytes, mut done) = (0, 0, Done::default());
    let logit_rows_only = op.rows == RowSet::Logits;
    let (steps, rows) = if logit_rows_only {
        (asked.steps_with_logits, asked.logit_rows)
    } else {
        (asked.steps, asked.rows)
    };
    match &op.kind {
        Kind::Multiply { products, .. } => {
            for product in products {
                let shape = model.weights().matrix(product.matrix).shape();
                macs_per_row += shape.macs();
                weight_bytes += shape.packed_bytes() as u64;
                let macs = shape.macs() * rows;
                if shape.is_float() {
                    done.float_macs += macs;
                } else {
                    done.int8_macs += macs;
                }
            }
            done.bytes = weight_bytes * steps;
        }
        Kind::Attend { layer, .. } => {
            let config = model.config();
            let seen = asked.seen[usize::from(config.windows[*layer].is_some())];
            // A key and a value for each pair and head.
            done.int16_macs = 2 * seen.pairs * (config.heads * config.head_dim) as u64;
            done.bytes = seen.positions * kv.layer_bytes(config, 1).iter().sum::<usize>() as u64;
        }
        _ => {}
    }
    OpReport { name: name(op), macs_per_row, weight_bytes, logit_rows_only, done }
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
                    sum.done += op.done;
                }
                None => sums.push(OpReport { name: kind.to_owned(), ..op.clone() }),
            }
        }
        sums
    }

    /// A table of where the time went, by kind of operation, beside what the machine's limits allow.
    #[must_use]
    pub fn profile(&self, limits: &Limits) -> String {
        use fmt::Write;
        let all: Duration = self.ops.iter().map(|op| op.done.time).sum();
        let mut out = format!(
            "{:<28} {:>10} {:>6} {:>8} {:>7} {:>9}\n",
            "operation", "ms", "share", "GMAC/s", "GB/s", "of limit"
        );
        for op in self.by_kind() {
            let seconds = op.done.time.as_secs_f64().max(1e-12);
            let share = seconds / all.as_secs_f64().max(1e-12);
            let rate = |amount: u64| {
                if amount == 0 {
                    return String::new();
                }
                format!("{:.1}", amount as f64 / seconds / 1e9)
            };
            let limit = op.done.limit(limits, self.threads).as_secs_f64();
            let of_limit = if limit > 0.0 {
                format!("{:.0} %", 100.0 * limit / seconds)
            } else {
                String::new()
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{:<28} {:>10.3} {:>5.1}% {:>8} {:>7} {of_limit:>9}",
                op.name,
                seconds * 1e3,
                share * 100.0,
                rate(op.done.int8_macs + op.done.int16_macs + op.done.float_macs),
                rate(op.done.bytes),
            );
        }
        let _ = writeln!(
            out,
            "limits of a core: {:.1} GMAC/s of bytes, {:.1} of 16 bits, {:.1} of floats, {:.1} GB/s; {} thread(s)",
            limits.int8, limits.int16, limits.float, limits.memory, self.threads
        );
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
