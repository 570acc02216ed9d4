//! The series of one process, and the verdict on them.

use std::collections::{BTreeMap, BTreeSet};

use super::borne_out::{confirmed, falls_back, follow, grew, moved};
use super::collector::JavaSeries;
use super::copies::Copies;
use super::line::{LayerLine, Line, Summary};
use super::nature::{counter, halves_of, nature, whole_of};
use super::waits::Waits;
use super::{Counter, Limit, Observation};
use crate::series::{Point, Series};
use crate::verdict::{Kind, Nature, SHORTEST, Verdict, When, judge, leaking};

/// The name under which the whole of RSS is judged.
const RSS: &str = "rss";
/// A layer is judged on its own series when it was sampled this often in the last minute.
const ENOUGH: usize = 24;
pub(super) const RECENT: f64 = 60.0;
/// Of a counter's growth, a layer with less than this share has no part in it,
const SMALL_SHARE: f64 = 0.1;
/// and one with less than this may owe it to its own noise, where it was seldom looked at.
pub(super) const FAIR_SHARE: f64 = 0.25;
/// Where it was looked at twice only, it must be most of what grows.
const MOST: f64 = 0.6;
/// A layer that was looked at so few seconds ago is as it was.
pub(super) const FRESH: f64 = 3.0;
/// What starts takes less.
const MUCH: u64 = 64 << 20;

/// What was seen of one process so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    pid: u32,
    start: u64,
    name: String,
    waits: Waits,
    pub(super) rss: Series,
    pub(super) counters: BTreeMap<Counter, Series>,
    pub(super) layers: BTreeMap<String, Series>,
    /// Those of them that the last full look saw.
    fresh: BTreeSet<String>,
    /// How often the layers were sampled in full, by time.
    full: Vec<f64>,
    sampled: bool,
    counted: Vec<String>,
    pub(super) collected: bool,
    /// What it shared with its parent when it was first seen.
    pub(super) inherited: Option<f64>,
    /// What shared memory may come to without anything more being mapped.
    pub(super) shared_bound: Series,
    /// What images have of the process's own: resident, and mapped.
    pub(super) code_data: [Series; 2],
    /// What a JVM said of its heap.
    java: JavaSeries,
    /// Of the memfds that it holds, what others answer for, and whether the last look saw that.
    pub(super) of_others: Series,
    of_others_seen: bool,
    copies: Copies,
    /// Whether the last look saw how much of it is shared since a fork.
    copied: bool,
    /// The sum of what is held in each counter's layers.
    held: BTreeMap<Counter, Series>,
}

impl History {
    /// Nothing seen yet.
    pub fn new(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Says when the process began, in clock ticks since boot.
    #[must_use]
    pub fn begun_at(self, ticks: u64) -> Self {
        Self { start: ticks, ..self }
    }

    /// Says what the process is called by now.
    pub fn set_name(&mut self, name: String) {
        self.name = name;
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds what one look saw, `time_s` seconds after the watch began.
    pub fn observe(&mut self, time_s: f64, seen: &Observation) {
        // The final line of one that ended before is in a record a second time.
        if self.rss.points().last().is_some_and(|last| time_s <= last.time_s) {
            return;
        }
        let point = |bytes| Point { time_s, bytes };
        self.rss.push(point(seen.rss));
        self.waits.push(time_s, seen.scheduled_s, seen.throttled_s);
        for (&name, &bytes) in &seen.counters {
            self.counters.entry(name).or_default().push(point(bytes));
        }
        for (name, &bytes) in &seen.layers {
            self.layers.entry(name.clone()).or_default().push(point(bytes));
        }
        self.inherited = self.inherited.or(seen.inherited);
        self.sampled = seen.sampled;
        self.counted = seen.counted();
        if let Some(bound) = seen.shared_bound {
            self.shared_bound.push(point(bound));
        }
        if let Some(both) = seen.code_data {
            for (series, bytes) in self.code_data.iter_mut().zip(both) {
                series.push(point(bytes));
            }
        }
        self.of_others_seen = seen.of_others.is_some();
        if let Some(bytes) = seen.of_others {
            self.of_others.push(point(bytes));
        }
        self.copied = seen.private_share.is_some();
        if let Some(both) = seen.private_share {
            self.copies.push(time_s, both);
        }
        if let Some(heap) = seen.java_heap {
            self.java.push(time_s, heap);
        }
        if seen.sampled {
            self.collected = seen.collected;
            self.observe_held(time_s, seen);
            self.fresh = seen.layers.keys().cloned().collect();
            self.full.retain(|at| *at >= time_s - RECENT);
            self.full.push(time_s);
        }
    }

    /// How many points and times it holds: what its memory grows with.
    pub fn points(&self) -> usize {
        let series = [&self.rss, &self.shared_bound, &self.of_others]
            .into_iter()
            .chain(self.counters.values());
        let series = series.chain(self.layers.values()).chain(self.held.values());
        let series = series.chain(&self.code_data);
        let points: usize = series.map(|series| series.points().len()).sum();
        points + self.waits.points() + self.java.points() + self.copies.points() + self.full.len()
    }

    /// The time of the last look.
    pub fn time(&self) -> f64 {
        self.rss.points().last().map_or(0.0, |p| p.time_s)
    }

    /// How long it ran and how long it waited, by the last look.
    pub fn scheduled_s(&self) -> [f64; 2] {
        self.waits.latest()
    }

    /// Whether it is judged a leak as it stands.
    pub fn leaks(&self) -> bool {
        self.line(|| None, false).verdict.leak == Some(true)
    }

    /// Whether what is resident grows.
    pub fn grows(&self) -> bool {
        judge(&self.rss, Nature::Held, When::Watching).kind == Kind::Growing
    }

    /// Whether it was seen for too short a time to be judged, and took little meanwhile: a worker that
    /// has just been started.
    pub fn is_brief(&self) -> bool {
        let taken = latest(&self.rss).saturating_sub(self.rss.points().first().map_or(0, bytes));
        self.rss.span() < SHORTEST && taken < MUCH
    }

    /// The line of this moment.
    pub fn line(&self, limit: impl FnOnce() -> Option<Limit>, last: bool) -> Line {
        self.judged(limit, if last { When::Ending } else { When::Watching }, last)
    }

    pub(super) fn judged(
        &self,
        limit: impl FnOnce() -> Option<Limit>,
        when: When,
        last: bool,
    ) -> Line {
        let mut verdicts: Vec<(&str, Verdict)> =
            self.names().map(|name| (name, self.judge_layer(name, when))).collect();
        let whole = self.judge(&self.rss, self.nature("anonymous"), when);
        follow(&mut verdicts, &whole);
        let held_still = self.judge_together(&mut verdicts, when);
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
            time_s: self.time(),
            pid: self.pid,
            name: self.name.clone(),
            rss_bytes: latest(&self.rss),
            counters: self.counters.iter().map(|(&name, s)| (name, latest(s))).collect(),
            sampled: self.sampled,
            counted: self.counted.clone(),
            unnamed: self.unnamed(),
            shared_bound_bytes: self.sampled.then(|| latest(&self.shared_bound)),
            private_share_bytes: self.copies.latest().filter(|_| self.copied),
            memfd_of_others_bytes: self.of_others_seen.then(|| latest(&self.of_others)),
            code_data_bytes: self.sampled.then(|| self.code_data.each_ref().map(latest)),
            java_heap: self.java.at(self.time()),
            collected: self.collected,
            inherited_bytes: self.inherited.map(|bytes| bytes as u64),
            processes: None,
            scheduled_s: self.scheduled_s(),
            start_ticks: self.start,
            layers,
            verdict: self.summary(verdicts, whole, held_still, when, limit),
            last,
            ended: false,
            brief: false,
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

    fn nature(&self, name: &str) -> Nature {
        nature(name, self.collected)
    }

    fn observe_held(&mut self, time_s: f64, seen: &Observation) {
        // A heap that could not be split this time holds what its allocator kept, too.
        if ["heap", "python"]
            .iter()
            .any(|w| seen.layers.contains_key(*w) && self.speaks_in_halves(w))
        {
            return;
        }
        let mut sums = BTreeMap::<Counter, f64>::new();
        for (name, &bytes) in &seen.layers {
            if let (Some(group), Nature::Held | Nature::Collected) =
                (counter(name), self.nature(name))
            {
                *sums.entry(group).or_default() += bytes;
            }
        }
        // The others have one layer each that can be held.
        if let Some(bytes) = sums.remove(&Counter::Anonymous) {
            let group = Counter::Anonymous;
            self.held.entry(group).or_default().push(Point { time_s, bytes });
        }
    }

    /// Where bytes are seen now in one layer, now in another, none of them grows alone: what they hold
    /// together is judged, and charged to the one that gained most. Whether it is known that nothing of
    /// it leaks.
    fn judge_together(&self, verdicts: &mut [(&str, Verdict)], when: When) -> bool {
        let mut still = !self.held.is_empty();
        for (&group, held) in &self.held {
            let of_group = |name: &str| {
                counter(name) == Some(group) && !matches!(self.nature(name), Nature::Harmless(_))
            };
            let mut beside = verdicts.iter_mut().filter(|(name, _)| of_group(name));
            if beside.any(|(_, verdict)| verdict.leak == Some(true)) {
                continue;
            }
            let nature = self.nature("anonymous");
            let together = self.judge_sampled(held, nature, when);
            let Some(whole) = self.counters.get(&group) else { continue };
            let mut together = confirmed(together, held, whole);
            if self.collected {
                let anonymous = self.layers.get("anonymous").map_or(0, latest);
                together = self.java.ask(together, anonymous, when);
            }
            still &= together.leak == Some(false);
            if together.leak != Some(true) {
                continue;
            }
            let gain = |name: &str| {
                let points = self.layers[name].last(together.window_s);
                let mean =
                    |p: &[Point]| p.iter().map(|p| p.bytes).sum::<f64>() / p.len().max(1) as f64;
                let (early, late) = points.split_at(points.len() / 2);
                mean(late) - mean(early)
            };
            let beside = verdicts.iter_mut().filter(|(name, _)| of_group(name));
            if let Some((_, most)) = beside.max_by(|(a, _), (b, _)| gain(a).total_cmp(&gain(b))) {
                *most = together;
            }
        }
        still
    }

    /// The verdict on a series; on the process's own time too, where it had to wait for processors: a
    /// program that is starved grows ever more slowly and leaks all the same.
    pub(super) fn judge(&self, series: &Series, nature: Nature, when: When) -> Verdict {
        let verdict = judge(series, nature, when);
        let settled = verdict.leak == Some(true) || matches!(nature, Nature::Harmless(_));
        if settled || verdict.kind == Kind::Flat || !self.waits.starved() {
            return verdict;
        }
        let own = judge(&self.waits.own_time(series), nature, when);
        match (own.leak, verdict.kind) {
            (Some(true), _) => {
                leaking(series.last(self.waits.since(series, own.window_s)), own.kind)
            }
            (None, Kind::WarmingUp) => {
                let why = "cannot tell: growth is slowing down, but it had to wait for processors";
                Verdict { leak: None, why: why.into(), ..verdict }
            }
            _ => verdict,
        }
    }

    /// The verdict on what full samples saw: a glitch of one hides no growth, nor makes any. A look that
    /// stands alone may be the low of a sawtooth, too, which is all that shows its floor.
    fn judge_sampled(&self, series: &Series, nature: Nature, when: When) -> Verdict {
        let smooth = self.judge(&series.without_glitches(), nature, when);
        match smooth.leak {
            None => Some(self.judge(series, nature, when)).filter(|raw| raw.leak == Some(true)),
            _ => None,
        }
        .unwrap_or(smooth)
    }

    fn judge_layer(&self, name: &str, when: When) -> Verdict {
        let series = &self.layers[name];
        let own = self.judge_sampled(series, self.nature(name), when);
        let shared = counter(name).and_then(|c| self.counters.get(&c));
        let own = match shared {
            Some(whole) => confirmed(own, series, whole),
            None => own,
        };
        let verdict = match shared {
            Some(whole) if series.last(RECENT).len() < ENOUGH.min(whole.last(RECENT).len()) => {
                self.share_of(name, series, whole, when).unwrap_or(own)
            }
            _ => own,
        };
        match name {
            "shared" => self.within_what_is_mapped(verdict),
            "code" => self.data_of_code(when).unwrap_or(verdict),
            "anonymous" if self.collected => self.java.ask(verdict, latest(series), when),
            _ => verdict,
        }
    }

    /// The shape of the counter, for the layer that moved it; `None` where too little is known.
    fn share_of(&self, name: &str, series: &Series, whole: &Series, when: When) -> Option<Verdict> {
        let mut verdict = self.judge(whole, self.nature(name), when);
        let group = counter(name)?;
        // Rates, not gains: the last look at one layer may be older than that at another. Of the same
        // half that the rate is of: what a program took when it started is another mixture.
        let gain = |s: &Series| {
            let points = match s.last(verdict.window_s / 2.0) {
                late @ [_, _, _, ..] => late,
                _ => s.last(verdict.window_s.max(RECENT)),
            };
            // Of one look nothing is known.
            let [first, .., last] = points else { return None };
            Some((last.bytes - first.bytes).max(0.0) / crate::series::span(points).max(1.0))
        };
        let beside = self.names().filter(|other| counter(other) == Some(group));
        let all: f64 = beside.filter_map(|other| gain(&self.layers[other])).sum();
        // What was not seen since (a heap that could not be split) may be what grows.
        let all = all.max(gain(whole)?);
        let share = gain(series)? / all.max(f64::MIN_POSITIVE);
        if share < SMALL_SHARE {
            verdict.kind = Kind::Flat;
            verdict.leak = Some(false);
            verdict.why = "what grows beside it is another layer".into();
        } else if verdict.leak == Some(true)
            && match series.last(verdict.window_s + RECENT / 2.0).len() {
                0 | 1 => true,
                2 => share < MOST,
                _ => share < FAIR_SHARE,
            }
        {
            verdict.leak = None;
            verdict.why = "its layer was looked at too rarely to know that it is what grows".into();
        } else if verdict.leak == Some(true) && falls_back(series.last(verdict.window_s + FRESH)) {
            verdict.leak = None;
            verdict.why =
                "its layer falls back between looks that are too rare to know its floor".into();
        }
        verdict.bytes_per_s = verdict.bytes_per_s.map(|rate| rate * share);
        verdict.interval = verdict.interval.map(|[low, high]| [low * share, high * share]);
        Some(verdict)
    }

    /// What RSS does not show is not answered for by RSS: that it grew is known, however rarely it was
    /// looked at.
    fn unjudged<'a>(&self, layers: &[(&'a str, Verdict)]) -> Option<(&'a str, Verdict)> {
        let beyond = layers.iter().filter(|(name, _)| counter(name).is_none());
        let open =
            beyond.filter(|(name, verdict)| verdict.leak.is_none() && grew(&self.layers[*name]));
        open.max_by_key(|(name, _)| latest(&self.layers[*name])).cloned()
    }

    fn summary(
        &self,
        mut layers: Vec<(&str, Verdict)>,
        whole: Verdict,
        held_still: bool,
        when: When,
        limit: impl FnOnce() -> Option<Limit>,
    ) -> Summary {
        layers.sort_by(|(_, a), (_, b)| rate(b).total_cmp(&rate(a)));
        let first = |wanted: &dyn Fn(&Verdict) -> bool| {
            layers.iter().find(|(_, verdict)| wanted(verdict)).cloned()
        };
        let (layer, mut verdict) = first(&|v| v.leak == Some(true))
            .or_else(|| first(&|v| v.leak.is_none() && rate(v) > 0.0 && moved(v)))
            .or_else(|| self.unjudged(&layers))
            .or_else(|| first(&|v| v.leak == Some(false) && v.kind == Kind::Growing))
            .map_or((None, whole), |(layer, verdict)| (Some(layer), verdict));
        // Where no layer can be seen, the whole is all there is to name.
        let mut named = layer.or(self.full.is_empty().then_some(RSS));
        // What no layer confirms is not said of the whole.
        if layer.is_none() && verdict.leak == Some(true) && !self.full.is_empty() {
            verdict.leak = None;
            verdict.why = "resident memory grows, but no layer shows yet that it is held".into();
        }
        // What is resident moves, and no part of it that can leak does.
        let known = self.full.len() >= ENOUGH && layers.iter().all(|(_, v)| v.leak == Some(false));
        if layer.is_none() && verdict.leak.is_none() && held_still && known {
            verdict.leak = Some(false);
            verdict.why = "what grows is not held: what allocators keep, code or files".into();
        }
        let silent =
            layer.is_none() && verdict.leak == Some(false) && verdict.kind != Kind::Growing;
        let copies = if silent { self.copies.verdict(when) } else { None };
        let is_copied = copies.is_some();
        if let Some(copies) = copies {
            (named, verdict) = (None, copies);
        }
        Summary { copies: is_copied, ..Summary::of(named.map(str::to_owned), verdict, limit) }
    }
}

pub(super) fn rate(verdict: &Verdict) -> f64 {
    verdict.bytes_per_s.unwrap_or(0.0)
}

fn latest(series: &Series) -> u64 {
    series.points().last().map_or(0, bytes)
}

fn bytes(point: &Point) -> u64 {
    point.bytes.max(0.0) as u64
}
