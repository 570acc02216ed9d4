//! Which Python objects became more: two censuses, and the growth between them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use plumb_target::Process;
use plumb_trace::python::census::{self, Census};
use plumb_trace::python::collector::{self, Collector};
use serde::Serialize;

use crate::growth::Growth;
use crate::run::Floor;

/// What became of the objects of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeGrowth {
    /// As the interpreter names it.
    #[serde(rename = "type")]
    pub name: String,
    /// How many there are.
    pub count: u64,
    /// Their bytes, estimated.
    pub bytes: u64,
    /// How many more than at the first census.
    pub count_growth: i64,
    /// How many bytes more.
    pub bytes_growth: i64,
}

/// The objects of one process, the types that grew most first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objects {
    /// The process.
    pub pid: u32,
    /// Seconds between the censuses.
    pub seconds: f64,
    /// One part of the arenas in how many was read; the counts are scaled.
    pub one_in: u64,
    /// Objects of up to 512 bytes, with what lists hold.
    pub types: Vec<TypeGrowth>,
    /// The cycle collector; `None` where its state is not found.
    pub collector: Option<Waiting>,
}

/// What CPython's cycle collector is set to, and what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Whether it runs by itself.
    pub is_on: bool,
    /// Objects made since it ran last.
    pub waiting: u64,
    /// How many more than at the first census.
    pub waiting_growth: i64,
}

impl Objects {
    /// Whether the collector is off, and objects that it would look at pile up as fast as any.
    pub fn pile_up_uncollected(&self) -> Option<Waiting> {
        const MANY: i64 = 1000;
        const PART: i64 = 4;
        let waiting = self.collector.filter(|c| !c.is_on && c.waiting_growth >= MANY)?;
        let most = self.types.iter().map(|t| t.count_growth).max()?;
        (waiting.waiting_growth >= most / PART).then_some(waiting)
    }

    /// Whether a type's objects became more in earnest: by a fiftieth of what all did.
    pub fn grows(&self, name: &str) -> bool {
        const PART: i64 = 50;
        let all: i64 = self.types.iter().map(|t| t.bytes_growth.max(0)).sum();
        let own = self.types.iter().filter(|t| t.name == name).map(|t| t.bytes_growth);
        all < 100 << 10 || own.sum::<i64>() > all / PART
    }

    /// The type of one of these names, also behind its module's, of which there are many more, and not few
    /// beside the others.
    pub fn grown<'a>(&'a self, names: &[String]) -> Option<&'a TypeGrowth> {
        const MANY: i64 = 200;
        const PART: i64 = 20;
        let most = self.types.iter().map(|t| t.count_growth).max()?;
        let is_one = |t: &&TypeGrowth| {
            names.iter().any(|name| t.name.rsplit('.').next() == Some(name.as_str()))
        };
        let many = |t: &&TypeGrowth| t.count_growth >= MANY.max(most / PART);
        self.types.iter().filter(is_one).find(many)
    }
}

/// The first census of each Python process that grew.
#[derive(Debug, Default)]
pub struct Censuses {
    first: Vec<First>,
    /// Processes that run no Python.
    not_python: HashSet<u32>,
}

/// A first census, to compare a later one with.
#[derive(Debug)]
struct First {
    process: Process,
    at: Instant,
    census: Census,
    collector: Option<Collector>,
}

/// What a census may take on a busy machine; what it reads is bounded too.
const TIME: Duration = Duration::from_secs(2);
/// Types told.
const MOST: usize = 20;
/// Processes whose objects are counted.
const MOST_PROCESSES: usize = 8;

impl Censuses {
    /// Counts the objects of a process whose private memory grew, or of any where `floor` says so.
    pub fn look(
        &mut self,
        floor: Option<Floor>,
        growth: &Growth,
        alive: impl IntoIterator<Item = Process>,
    ) {
        let wanted = floor.is_none_or(|f| f == Floor::Python);
        if !wanted || self.first.len() >= MOST_PROCESSES {
            return;
        }
        let least = if floor.is_some() { 0 } else { 1 << 20 };
        for process in alive {
            let pid = process.pid();
            let is_counted = self.first.iter().any(|first| first.process.pid() == pid);
            if growth.grown_private_of(pid) < least || is_counted || self.not_python.contains(&pid)
            {
                continue;
            }
            // One at each look, so that no look takes long.
            match First::take(&process) {
                Some(first) => return self.first.push(first),
                None => _ = self.not_python.insert(pid),
            }
        }
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// What became of a process's objects. `None` where they were not counted, or it is gone.
    pub fn compare(&self, pid: u32) -> Option<Objects> {
        self.first.iter().find(|first| first.process.pid() == pid)?.compare()
    }
}

impl First {
    /// Counts the objects of a process. `None` where it runs no Python that can be read.
    fn take(process: &Process) -> Option<Self> {
        let census = census::take(process, Instant::now() + TIME)?;
        let collector = collector::read(process);
        Some(Self { process: *process, at: Instant::now(), census, collector })
    }

    /// Counts again. `None` where the process is gone.
    fn compare(&self) -> Option<Objects> {
        let now = census::take(&self.process, Instant::now() + TIME)?;
        let growth = |now: u64, before: u64| now.cast_signed().saturating_sub(before.cast_signed());
        let mut types: Vec<TypeGrowth> = now
            .types
            .iter()
            .map(|(name, count)| {
                let before = self.census.types.get(name).copied().unwrap_or_default();
                TypeGrowth {
                    name: name.clone(),
                    count: count.objects,
                    bytes: count.bytes,
                    count_growth: growth(count.objects, before.objects),
                    bytes_growth: growth(count.bytes, before.bytes),
                }
            })
            .collect();
        types.sort_by(|a, b| (b.bytes_growth, &a.name).cmp(&(a.bytes_growth, &b.name)));
        types.truncate(MOST);
        let collector = self.collector.zip(collector::read(&self.process));
        let collector = collector.map(|(then, now)| Waiting {
            is_on: now.is_on,
            waiting: now.waiting,
            waiting_growth: growth(now.waiting, then.waiting),
        });
        let seconds = self.at.elapsed().as_secs_f64();
        Some(Objects {
            pid: self.process.pid(),
            seconds,
            one_in: now.one_in.max(self.census.one_in),
            types,
            collector,
        })
    }
}
