//! One look at one process.

use std::collections::BTreeMap;

use plumb_target::{Error, Memory, Process, Range, jvm};
use serde::{Deserialize, Serialize};

use super::JavaLine;
use super::nature::halves_of;
use crate::beyond::Files;
use crate::{Depth, Sample};

/// The kernel's own split of RSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// `RssAnon`.
    Anonymous,
    /// `RssFile`.
    Files,
    /// `RssShmem`.
    Shared,
}

/// What one look saw. What is not there was not looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// Resident bytes.
    pub rss: f64,
    /// The cheap counters.
    pub counters: BTreeMap<Counter, f64>,
    /// Bytes by layer, and by kind beyond RSS.
    pub layers: BTreeMap<String, f64>,
    /// What shared memory may come to without anything more being mapped: touching what others hold
    /// already is no leak.
    pub shared_bound: Option<f64>,
    /// Of private memory, where it may be copied since a fork: its share, and what is resident.
    pub private_share: Option<[f64; 2]>,
    /// How many pages it was given or copied since it began.
    pub faults: u64,
    /// Of private memory, what it shared with its parent when it was first seen.
    pub inherited: Option<f64>,
    /// Of images, what is the process's own: resident, and mapped.
    pub code_data: Option<[f64; 2]>,
    /// What a JVM says of its heap.
    pub java_heap: Option<JavaLine>,
    /// Where that stands in its memory.
    pub java_data: Option<Range>,
    /// The files in memory that it holds or maps.
    pub files: Files,
    /// Of memfds that it holds and does not map, what another process of the watch answers for.
    pub of_others: Option<f64>,
    /// By kind of files that are held by a descriptor, what of them is mapped.
    pub mapped_files: Vec<(&'static str, f64)>,
    /// Seconds that its first thread ran, and that it waited for a processor, since it began.
    pub scheduled_s: [f64; 2],
    /// Seconds for which a quota on processor time kept its group from running.
    pub throttled_s: Option<f64>,
    /// Whether all layers were looked at.
    pub sampled: bool,
    /// Whether a collector that cannot be seen frees its anonymous memory.
    pub collected: bool,
}

/// How a sample tells of the runtimes whose collectors let a heap grow for long before they free any
/// of it. Go's collector starts at 4 MB and is none of them.
const COLLECTORS: [&str; 7] = [
    "the heap of the JVM",
    "the heap of V8",
    "the heap of JavaScriptCore",
    "the heap of .NET",
    "the heap of Mono",
    "the heap of Julia",
    "the heap of SBCL",
];

/// Kinds that the cheap counters give too.
pub(super) const CHEAP: [&str; 2] = ["page_tables", "swap"];

impl Observation {
    /// The counters alone.
    ///
    /// # Errors
    /// Vanished or zombie: there is no memory to count.
    pub fn cheap(process: &Process) -> Result<Self, Error> {
        let status = process.status()?;
        let rss = status.rss_anon + status.rss_file + status.rss_shmem;
        let stat = process.stat()?;
        // One that is about to end has given its memory back already.
        if rss == 0 || !process.runs(&stat) {
            return Err(Error::Vanished { pid: process.pid() });
        }
        Ok(Self {
            rss: rss as f64,
            counters: [
                (Counter::Anonymous, status.rss_anon as f64),
                (Counter::Files, status.rss_file as f64),
                (Counter::Shared, status.rss_shmem as f64),
            ]
            .into(),
            layers: CHEAP
                .map(str::to_owned)
                .into_iter()
                .zip([status.vm_pte as f64, status.vm_swap as f64])
                .collect(),
            scheduled_s: process.scheduled_s(),
            faults: stat.minor_faults,
            ..Self::default()
        })
    }

    /// Of a look that was no full one, the layers that it saw beside the cheap counters'.
    pub(super) fn counted(&self) -> Vec<String> {
        let layers = self.layers.keys().filter(|name| !CHEAP.contains(&name.as_str()));
        if self.sampled { Vec::new() } else { layers.cloned().collect() }
    }

    /// All shared memory that is mapped, in bytes.
    pub(super) fn shared(&self) -> f64 {
        self.counters.get(&Counter::Shared).copied().unwrap_or(0.0)
    }

    /// The counters, and what a JVM says at `java` of its heap.
    ///
    /// # Errors
    /// As [`Observation::cheap`].
    pub fn cheap_of_java(process: &Process, java: Option<&Range>) -> Result<Self, Error> {
        let mut seen = Self::cheap(process)?;
        if let Some(data) = java
            && let Ok(memory) = Memory::open(process)
        {
            seen.java_heap = jvm::read(&memory, data).map(JavaLine::from);
            seen.java_data = Some(data.clone());
        }
        Ok(seen)
    }

    /// Counters and layers.
    ///
    /// # Errors
    /// As [`crate::take`].
    pub fn full(process: &Process, depth: Depth) -> Result<Self, Error> {
        let sample = crate::take(process, depth)?;
        let mut seen = Self::cheap(process)?;
        seen.add(&sample);
        Ok(seen)
    }

    fn add(&mut self, sample: &Sample) {
        self.sampled = true;
        self.files.clone_from(&sample.files);
        self.java_data.clone_from(&sample.java_data);
        self.java_heap = sample.java_heap.map(JavaLine::from);
        self.code_data = Some(sample.code_data_bytes.map(|bytes| bytes as f64));
        self.shared_bound = Some(sample.shared_bound_bytes as f64);
        for row in &sample.layers {
            self.layers.insert(row.layer.name().to_owned(), row.resident_bytes as f64);
        }
        for beyond in &sample.beyond_rss {
            if let Some(bytes) = beyond.bytes {
                let name = beyond.kind.name();
                self.layers.insert(name.to_owned(), bytes as f64);
                self.mapped_files.extend(beyond.mapped_bytes.map(|mapped| (name, mapped as f64)));
            }
        }
        self.collected =
            sample.notes.iter().any(|note| COLLECTORS.iter().any(|c| note.starts_with(c)));
        self.one_name_each();
    }

    /// A heap that moved under the walk is in part split and in part not: halves that lack a part
    /// would fall and rise from look to look, so such a look knows only the whole.
    fn one_name_each(&mut self) {
        for whole in ["heap", "python"] {
            let bytes = self.layers.remove(whole).filter(|bytes| *bytes > 0.0);
            let (Some(bytes), Some(halves)) = (bytes, halves_of(whole)) else { continue };
            let split: f64 = halves.iter().filter_map(|half| self.layers.remove(*half)).sum();
            self.layers.insert(whole.to_owned(), bytes + split);
        }
    }
}
