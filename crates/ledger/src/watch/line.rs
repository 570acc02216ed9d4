//! What a watch prints: one object a process and look.

use std::collections::BTreeMap;

use plumb_target::jvm::JavaHeap;
use serde::{Deserialize, Serialize};

use super::{Counter, Limit};
use crate::verdict::{Kind, Verdict};

/// One process at one look. As JSON this is also what a record holds and a replay reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Seconds since the watch began.
    pub time_s: f64,
    /// The process.
    pub pid: u32,
    /// The kernel's short name for it; empty where nobody said it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its resident bytes.
    pub rss_bytes: u64,
    /// The kernel's own split of them.
    #[serde(default)]
    pub counters: BTreeMap<Counter, u64>,
    /// Whether the layers were sampled at this look; else they are as they were last.
    #[serde(default = "yes")]
    pub sampled: bool,
    /// Of a look that sampled no layers, those that were counted all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<String>,
    /// What this look saw under other names: `heap` where its halves could not be told apart this
    /// time, and the rows of the halves are as they were last; or the halves, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unnamed: BTreeMap<String, u64>,
    /// What its shared memory may come to without anything more being mapped, where it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bound_bytes: Option<u64>,
    /// Of its private memory, where pages of it may be copied since a fork: its share, with pages that others
    /// hold too divided among all, and what is resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_share_bytes: Option<[u64; 2]>,
    /// Of `memfd_unmapped`, what another process of the watch holds too and answers for in sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memfd_of_others_bytes: Option<u64>,
    /// Data of programs and libraries that is the process's own, where it was looked at: what is
    /// resident, and what may come to be without anything more being mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_data_bytes: Option<[u64; 2]>,
    /// What a JVM says of its heap, where it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub java_heap: Option<JavaLine>,
    /// Whether a collector that cannot be seen frees its anonymous memory: growth is watched longer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub collected: bool,
    /// Of its private memory, what it shared with its parent when it was first seen, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_bytes: Option<u64>,
    /// Of a line that speaks of all processes of a watch together (`pid` is 0): how many run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// Seconds that its first thread ran, and that it waited for a processor, since it began; waits under
    /// a quota of its group among them, since the watch began.
    #[serde(default)]
    pub scheduled_s: [f64; 2],
    /// When it began, in clock ticks since boot: another process may get its pid.
    #[serde(default)]
    pub start_ticks: u64,
    /// Its layers, and what it has beyond RSS.
    pub layers: Vec<LayerLine>,
    /// The verdict on the whole.
    pub verdict: Summary,
    /// Whether this is the watch's final line for the process.
    #[serde(default)]
    pub last: bool,
    /// Of a final line: the process ended before the watch did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Of a final line: a child that was young when the watch ended, which is no question left open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brief: bool,
}

fn yes() -> bool {
    true
}

/// What a JVM says of its heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JavaLine {
    /// Bytes in use of the old generation after the last collection.
    pub old_bytes: u64,
    /// How often that was collected: concurrent cycles and full collections.
    pub old_collections: u64,
    /// What all generations may take without asking for more.
    pub capacity_bytes: u64,
}

impl From<JavaHeap> for JavaLine {
    fn from(heap: JavaHeap) -> Self {
        Self {
            old_bytes: heap.old_bytes,
            old_collections: heap.old_collections,
            capacity_bytes: heap.capacity_bytes,
        }
    }
}

/// One layer of a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerLine {
    /// Its name.
    pub layer: String,
    /// Its bytes when it was last sampled.
    pub resident_bytes: u64,
    /// Its rate.
    pub bytes_per_s: Option<f64>,
    /// Its shape.
    pub kind: Kind,
    /// Its judgement.
    pub leak: Option<bool>,
}

/// The verdict on a process: that of its worst layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The shape.
    pub kind: Kind,
    /// The judgement.
    pub leak: Option<bool>,
    /// The layer that it speaks of; null where it speaks of the whole.
    pub layer: Option<String>,
    /// The rate.
    pub bytes_per_s: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Seconds until the nearest limit is reached at this rate; null where nothing grows.
    pub oom_in_s: Option<f64>,
    /// Which limit that is.
    #[serde(default)]
    pub limit: Option<String>,
    /// The seconds that the verdict speaks of.
    #[serde(default)]
    pub window_s: f64,
    /// Why.
    pub why: String,
    /// Whether what grows are copies of memory that was shared since a fork.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copies: bool,
}

impl Summary {
    /// As a line tells it.
    pub(super) fn of(
        layer: Option<String>,
        verdict: Verdict,
        limit: impl FnOnce() -> Option<Limit>,
    ) -> Self {
        let rate = verdict.bytes_per_s.unwrap_or(0.0);
        // A rate whose interval holds 0 fills nothing.
        let grows = verdict.interval.is_some_and(|[low, _]| low > 0.0) && rate > 0.0;
        let oom = if grows { limit() } else { None };
        Self {
            kind: verdict.kind,
            leak: verdict.leak,
            layer,
            bytes_per_s: verdict.bytes_per_s.map(f64::round),
            interval: verdict.interval.map(|both| both.map(f64::round)),
            oom_in_s: oom.as_ref().map(|l| (l.headroom_bytes as f64 / rate).round()),
            limit: oom.map(|l| l.name),
            window_s: verdict.window_s,
            why: verdict.why,
            copies: false,
        }
    }
}

impl Line {
    /// The worst last, of those alike the fastest.
    pub fn worst_last(lines: &mut [Self]) {
        let rate = |line: &Self| line.verdict.bytes_per_s.unwrap_or(0.0);
        lines.sort_by(|a, b| a.severity().cmp(&b.severity()).then(rate(a).total_cmp(&rate(b))));
    }

    /// How bad: a leak, then what cannot be told, then none. What was only seen briefly says nothing.
    pub fn severity(&self) -> u8 {
        match self.verdict.leak {
            Some(true) => 2,
            None if !self.brief => 1,
            _ => 0,
        }
    }
}
