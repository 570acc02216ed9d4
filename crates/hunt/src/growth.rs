//! Where the growth is: the ledger's layers over the hunt, and the verdict on them.

use std::collections::BTreeMap;
use std::fs;

use plumb_ledger::series::{Point, Series};
use plumb_ledger::verdict::{self, Kind, Nature};
use plumb_ledger::{Depth, Layer, Sample};
use plumb_target::{Process, select};
use serde::{Serialize, Serializer};

/// A layer as a verdict names it: of RSS, or beyond it.
pub type LayerName = String;

/// The verdict on the whole hunt, as `plumb watch` gives it, with the process.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The process whose layer is meant.
    pub pid: u32,
    /// The shape.
    #[serde(serialize_with = "kind_name")]
    pub kind: Kind,
    /// The judgement.
    pub leak: Option<bool>,
    /// The layer; `None` where none grows.
    pub layer: Option<LayerName>,
    /// Growth.
    pub bytes_per_s: Option<f64>,
    /// 95 %.
    pub interval: Option<[f64; 2]>,
    /// At this rate.
    pub oom_in_s: Option<f64>,
    /// In one sentence.
    pub why: String,
    /// How much the layer grew since the attach.
    pub grown_bytes: u64,
}

fn kind_name<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    kind.serialize(serializer)
}

/// One layer of one process over the hunt.
#[derive(Debug, Clone, Serialize)]
pub struct Track {
    /// Process.
    pub pid: u32,
    /// Layer.
    pub layer: LayerName,
    /// Time in seconds since the attach, and bytes.
    pub points: Vec<(f64, u64)>,
}

/// Every layer of every process over the hunt.
#[derive(Debug, Default)]
pub struct Growth {
    series: BTreeMap<(u32, LayerName), Series>,
    clean: BTreeMap<u32, Series>,
}

/// Growth below this is noise, in bytes.
const SMALL: f64 = (1 << 20) as f64;

impl Growth {
    /// Takes a sample of every process that can be read.
    pub fn sample(&mut self, processes: &[Process], time_s: f64) {
        let depth = Depth { beyond: true, ..Depth::CLASSIFY };
        for process in processes {
            if let Ok(sample) = plumb_ledger::take(process, depth) {
                self.add(&sample, time_s);
            }
        }
    }

    fn add(&mut self, sample: &Sample, time_s: f64) {
        let mut push = |layer: &str, bytes: u64| {
            let series = self.series.entry((sample.pid, layer.to_owned())).or_default();
            series.push(Point { time_s, bytes: bytes as f64 });
        };
        for row in &sample.layers {
            push(row.layer.name(), row.resident_bytes);
        }
        for beyond in &sample.beyond_rss {
            if let Ok(serde_json::Value::String(kind)) = serde_json::to_value(beyond.kind) {
                push(&kind, beyond.bytes.unwrap_or(0));
            }
        }
        let files = sample.layers.iter().find(|row| row.layer == Layer::Files);
        let clean = files.and_then(|row| row.clean_bytes).unwrap_or(0);
        let series = self.clean.entry(sample.pid).or_default();
        series.push(Point { time_s, bytes: clean as f64 });
    }

    /// The verdict on the layer that matters most: what leaks before what only grows, the faster
    /// before the slower.
    pub fn verdict(&self, fallback_pid: u32) -> Verdict {
        let all = self.series.iter().map(|((pid, layer), s)| self.judge(*pid, layer, s));
        let best = all.max_by(|a, b| rank(a).total_cmp(&rank(b)));
        match best {
            Some(v) if v.grown_bytes as f64 >= SMALL || v.leak == Some(true) => v,
            Some(v) => Verdict { layer: None, grown_bytes: 0, ..self.overall(v.pid) },
            None => self.overall(fallback_pid),
        }
    }

    /// Where no layer grew: the verdict on all of a process.
    fn overall(&self, pid: u32) -> Verdict {
        let mut sum: Series = Series::default();
        let mut by_time: BTreeMap<u64, f64> = BTreeMap::new();
        for (_, s) in self.series.iter().filter(|((p, _), _)| *p == pid) {
            for p in s.points() {
                *by_time.entry(p.time_s.to_bits()).or_default() += p.bytes;
            }
        }
        for (time, bytes) in by_time {
            sum.push(Point { time_s: f64::from_bits(time), bytes });
        }
        let v = verdict::judge(&sum, Nature::Held);
        Verdict {
            pid,
            kind: v.kind,
            leak: v.leak,
            layer: None,
            bytes_per_s: v.bytes_per_s,
            interval: v.interval,
            oom_in_s: None,
            why: v.why,
            grown_bytes: 0,
        }
    }

    fn judge(&self, pid: u32, layer: &str, series: &Series) -> Verdict {
        let v = verdict::judge(series, self.nature(pid, layer, series));
        Verdict {
            pid,
            kind: v.kind,
            leak: v.leak,
            layer: Some(layer.to_owned()),
            bytes_per_s: v.bytes_per_s,
            interval: v.interval,
            oom_in_s: v.bytes_per_s.and_then(|rate| time_to_limit(pid, rate)),
            why: v.why,
            grown_bytes: grown(series).max(0.0) as u64,
        }
    }

    fn nature(&self, pid: u32, layer: &str, series: &Series) -> Nature {
        match layer {
            "heap_retained" => {
                Nature::Harmless("memory that the allocator keeps after it was freed")
            }
            "python_free" => Nature::Harmless("object memory that Python keeps after it was freed"),
            "huge_page_slack" => Nature::Harmless("untouched parts of huge pages"),
            "files" => {
                let clean = self.clean.get(&pid).map_or(0.0, grown);
                if clean > grown(series) / 2.0 {
                    Nature::Harmless("clean file pages, which the kernel drops when it needs room")
                } else {
                    Nature::Held
                }
            }
            _ => Nature::Held,
        }
    }

    /// How much a process's layers grew in all, each that did, in bytes.
    pub fn grown_in_all(&self) -> u64 {
        self.series.values().map(|s| grown(s).max(0.0) as u64).sum()
    }

    /// For a timeline.
    pub fn tracks(&self) -> Vec<Track> {
        let all = self.series.iter().filter(|(_, s)| s.points().iter().any(|p| p.bytes > 0.0));
        all.map(|((pid, layer), s)| Track {
            pid: *pid,
            layer: layer.clone(),
            points: s.points().iter().map(|p| (p.time_s, p.bytes as u64)).collect(),
        })
        .collect()
    }
}

fn grown(series: &Series) -> f64 {
    match series.points() {
        [first, .., last] => last.bytes - first.bytes,
        _ => 0.0,
    }
}

/// Leaks first, then what may leak, then what grows harmlessly; within each by bytes.
fn rank(v: &Verdict) -> f64 {
    let class = match (v.leak, v.kind) {
        (Some(true), _) => 3.0,
        (None, Kind::Growing | Kind::Undecided | Kind::Step) => 2.0,
        _ => 1.0,
    };
    // Bytes of a hunt stay far below 2^50.
    let bytes = v.grown_bytes as f64;
    if bytes < SMALL && v.leak != Some(true) {
        return bytes / SMALL;
    }
    class * (1u64 << 50) as f64 + bytes
}

/// Seconds until the machine's or the cgroup's memory is used up at this rate.
fn time_to_limit(pid: u32, rate: f64) -> Option<f64> {
    if rate <= 0.0 {
        return None;
    }
    let machine = available();
    let group = Process::open(pid).ok().and_then(|p| group_room(&p));
    let room = machine.into_iter().chain(group).fold(f64::INFINITY, f64::min);
    room.is_finite().then_some(room / rate)
}

fn available() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

fn group_room(process: &Process) -> Option<f64> {
    let (dir, version) = select::memory_cgroup(process)?;
    let (limit, used) = match version {
        1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        _ => ("memory.max", "memory.current"),
    };
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<f64>().ok();
    let limit = number(limit).filter(|l| *l < 1e15)?;
    Some((limit - number(used)?).max(0.0))
}
