//! The series of one process, and the verdict on them.

use std::collections::{BTreeMap, BTreeSet};

use super::line::{LayerLine, Line, Summary};
use super::nature::{counter, halves_of, nature, whole_of};
use super::{Counter, Limit, Observation};
use crate::series::{Point, Series};
use crate::verdict::{Kind, Nature, Verdict, judge};

/// The name under which the whole of RSS is judged.
const RSS: &str = "rss";
/// A layer is judged on its own series when it was sampled this often in the last minute.
const ENOUGH: usize = 24;
const RECENT: f64 = 60.0;

/// What was seen of one process so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    pid: u32,
    rss: Series,
    counters: BTreeMap<Counter, Series>,
    layers: BTreeMap<String, Series>,
    /// Those of them that the last full look saw.
    fresh: BTreeSet<String>,
    /// How often the layers were sampled in full, by time.
    full: Vec<f64>,
    sampled: bool,
}

impl History {
    /// Nothing seen yet.
    pub fn new(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Adds what one look saw, `time_s` seconds after the watch began.
    pub fn observe(&mut self, time_s: f64, seen: &Observation) {
        let point = |bytes| Point { time_s, bytes };
        self.rss.push(point(seen.rss));
        for (&name, &bytes) in &seen.counters {
            self.counters.entry(name).or_default().push(point(bytes));
        }
        for (name, &bytes) in &seen.layers {
            self.layers.entry(name.clone()).or_default().push(point(bytes));
        }
        self.sampled = seen.sampled;
        if seen.sampled {
            self.fresh = seen.layers.keys().cloned().collect();
            self.full.retain(|at| *at >= time_s - RECENT);
            self.full.push(time_s);
        }
    }

    /// Whether it is judged a leak as it stands.
    pub fn leaks(&self) -> bool {
        self.line(None, false).verdict.leak == Some(true)
    }

    /// Whether the cheap counters grow though no recent full sample says where.
    pub fn wants_full(&self) -> bool {
        let now = self.rss.points().last().map_or(0.0, |p| p.time_s);
        let old = self.full.last().is_none_or(|at| now - at > RECENT / 3.0);
        old && judge(&self.rss, Nature::Held).kind == Kind::Growing
    }

    /// The line of this moment.
    pub fn line(&self, limit: Option<&Limit>, last: bool) -> Line {
        let verdicts: Vec<(&str, Verdict)> =
            self.names().map(|name| (name, self.judge_layer(name))).collect();
        let layers = verdicts
            .iter()
            .map(|(name, verdict)| LayerLine {
                layer: (*name).to_owned(),
                resident_bytes: latest(&self.layers[*name]),
                bytes_per_s: verdict.bytes_per_s.map(f64::round),
                kind: verdict.kind,
                leak: verdict.leak,
            })
            .collect();
        Line {
            time_s: self.rss.points().last().map_or(0.0, |p| p.time_s),
            pid: self.pid,
            rss_bytes: latest(&self.rss),
            counters: self.counters.iter().map(|(&name, s)| (name, latest(s))).collect(),
            sampled: self.sampled,
            unnamed: self.unnamed(),
            layers,
            verdict: self.summary(verdicts, limit),
            last,
        }
    }

    /// The layers that are spoken of. A heap that moves under the walk is seen whole in some looks
    /// and in halves in others: whichever was seen often speaks, so that no layer comes and goes.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str).filter(|name| {
            match (whole_of(name), halves_of(name)) {
                (Some(whole), _) => self.speaks_in_halves(whole),
                (_, Some(_)) => !self.speaks_in_halves(name),
                _ => true,
            }
        })
    }

    fn speaks_in_halves(&self, whole: &str) -> bool {
        let looks = |name: &str| self.layers.get(name).map_or(0, |s| s.last(RECENT).len());
        let Some([half, _]) = halves_of(whole) else { return false };
        looks(half) >= looks(whole).div_ceil(3)
    }

    /// What the last full look saw under names that are not spoken of.
    fn unnamed(&self) -> BTreeMap<String, u64> {
        if !self.sampled {
            return BTreeMap::new();
        }
        let named: BTreeSet<&str> = self.names().collect();
        let unnamed = self.fresh.iter().filter(|name| !named.contains(name.as_str()));
        unnamed.map(|name| (name.clone(), latest(&self.layers[name]))).collect()
    }

    fn judge_layer(&self, name: &str) -> Verdict {
        let series = &self.layers[name];
        let own = judge(&series.without_glitches(), nature(name));
        let shared = counter(name).and_then(|c| self.counters.get(&c));
        match shared {
            Some(whole) if series.last(RECENT).len() < ENOUGH.min(whole.last(RECENT).len()) => {
                self.share_of(name, series, whole).unwrap_or(own)
            }
            _ => own,
        }
    }

    /// The shape of the counter, for the layer that moved it; `None` where too little is known.
    fn share_of(&self, name: &str, series: &Series, whole: &Series) -> Option<Verdict> {
        let mut verdict = judge(whole, nature(name));
        let group = counter(name)?;
        // Rates, not gains: the last look at one layer may be older than that at another. Of the same
        // half that the rate is of: what a program took when it started is another mixture.
        let gain = |s: &Series| {
            let points = match s.last(verdict.window_s / 2.0) {
                late @ [_, _, _, ..] => late,
                _ => s.last(verdict.window_s.max(RECENT)),
            };
            let bytes = points.last()?.bytes - points.first()?.bytes;
            Some(bytes.max(0.0) / crate::series::span(points).max(1.0))
        };
        let beside = self.names().filter(|other| counter(other) == Some(group));
        let all: f64 = beside.filter_map(|other| gain(&self.layers[other])).sum();
        let share = gain(series)? / all.max(f64::MIN_POSITIVE);
        if share < 0.1 {
            verdict.kind = Kind::Flat;
            verdict.leak = Some(false);
            verdict.why = "what grows beside it is another layer".into();
        }
        verdict.bytes_per_s = verdict.bytes_per_s.map(|rate| rate * share);
        verdict.interval = verdict.interval.map(|[low, high]| [low * share, high * share]);
        Some(verdict)
    }

    fn summary(&self, mut layers: Vec<(&str, Verdict)>, limit: Option<&Limit>) -> Summary {
        layers.sort_by(|(_, a), (_, b)| rate(b).total_cmp(&rate(a)));
        let first = |wanted: &dyn Fn(&Verdict) -> bool| {
            layers.iter().find(|(_, verdict)| wanted(verdict)).cloned()
        };
        let whole = judge(&self.rss, Nature::Held);
        let (layer, verdict) = first(&|v| v.leak == Some(true))
            .or_else(|| first(&|v| v.leak.is_none() && rate(v) > 0.0 && moved(v)))
            .or_else(|| first(&|v| v.leak == Some(false) && v.kind == Kind::Growing))
            .map_or((None, whole), |(layer, verdict)| (Some(layer), verdict));
        // Where no layer can be seen, the whole is all there is to name.
        let named = layer.or(self.full.is_empty().then_some(RSS));
        // What no layer confirms is not said of the whole.
        let leak = match (layer, verdict.leak) {
            (None, Some(true)) if !self.full.is_empty() => None,
            (_, leak) => leak,
        };
        // A rate whose interval holds 0 fills nothing.
        let grows = verdict.interval.is_some_and(|[low, _]| low > 0.0) && rate(&verdict) > 0.0;
        let oom = limit.filter(|_| grows);
        Summary {
            kind: verdict.kind,
            leak,
            layer: named.map(str::to_owned),
            bytes_per_s: verdict.bytes_per_s.map(f64::round),
            interval: verdict.interval.map(|[low, high]| [low.round(), high.round()]),
            oom_in_s: oom.map(|l| (l.headroom_bytes as f64 / rate(&verdict)).round()),
            limit: oom.map(|l| l.name.clone()),
            window_s: verdict.window_s,
            why: verdict.why,
        }
    }
}

/// Too short to know, though nothing moves, is no reason to be undecided about the whole.
fn moved(verdict: &Verdict) -> bool {
    verdict.kind != Kind::Flat
}

fn rate(verdict: &Verdict) -> f64 {
    verdict.bytes_per_s.unwrap_or(0.0)
}

fn latest(series: &Series) -> u64 {
    series.points().last().map_or(0, |p| p.bytes.max(0.0) as u64)
}
