//! Where the growth is: the ledger's layers over the hunt, and the verdict on them.

use std::collections::BTreeMap;

use plumb_ledger::verdict::Kind;
use plumb_ledger::watch::{self, Counter, Line, Summary, Watcher, halves_of, whole_of};
use plumb_target::Process;
use plumb_trace::events;
use serde::Serialize;

/// The verdict on the whole hunt, as `plumb watch` gives it, with the process.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The process whose layer is meant.
    pub pid: u32,
    /// The watch's words.
    #[serde(flatten)]
    pub summary: Summary,
    /// How much the layer grew since the attach.
    pub grown_bytes: u64,
}

/// One layer of one process over the hunt.
#[derive(Debug, Clone, Serialize)]
pub struct Track {
    /// Process.
    pub pid: u32,
    /// Layer.
    pub layer: String,
    /// Time in seconds since the attach, and bytes.
    pub points: Vec<(f64, u64)>,
}

/// Every layer of every process over the hunt.
#[derive(Debug)]
pub struct Growth {
    watcher: Watcher,
    tracks: BTreeMap<(u32, String), Vec<(f64, u64)>>,
    /// When each was looked at last, in nanoseconds of `CLOCK_MONOTONIC`.
    looked_ns: BTreeMap<(u32, String), u64>,
    /// The kernel's own count of private memory, by process: first and last.
    counted: BTreeMap<u32, (u64, u64)>,
    /// The share of private memory that is shared since a fork, by process: first and last.
    copied: BTreeMap<u32, (u64, u64)>,
}

/// A full sample may cost this share of a core.
const BUDGET: f64 = 0.015;
/// A process that ended longer after its last look is told as it was then, in nanoseconds.
const UNSEEN_NS: u64 = 6_000_000_000;
/// Processes that end within this time end together, in nanoseconds.
const TOGETHER_NS: u64 = 2_000_000_000;
/// Points kept of a track.
const POINTS: usize = 1024;

impl Growth {
    /// Looks at nothing yet.
    pub fn new(roots: Vec<Process>, children: bool) -> Self {
        // What stacks hold is told as it is at the end, and so must be the total.
        let exact_end = true;
        let options =
            watch::Options { children, budget: BUDGET, exact_end, ..watch::Options::default() };
        Self {
            watcher: Watcher::new(roots, options),
            tracks: BTreeMap::new(),
            looked_ns: BTreeMap::new(),
            counted: BTreeMap::new(),
            copied: BTreeMap::new(),
        }
    }

    /// Looks at every process; one that has just ended is left out.
    pub fn look(&mut self) {
        let now_ns = events::now_ns();
        for line in self.watcher.look().unwrap_or_default() {
            for layer in self.keep(&line) {
                self.looked_ns.insert((line.pid, layer), now_ns);
            }
        }
    }

    /// The processes that still run, of those that were looked at.
    pub fn alive(&self) -> impl Iterator<Item = Process> + '_ {
        self.watcher.alive()
    }

    /// Looks a last time and gives the verdict on the process that is worst off, given when processes have
    /// ended. `None` where no process could ever be seen.
    pub fn finish(&mut self, ended_ns: impl Fn(u32) -> Option<u64>) -> Option<Verdict> {
        let lines = self.watcher.finish().ok()?;
        for line in &lines {
            self.keep(line);
        }
        let worst = lines.last()?;
        let (mut pid, mut summary) = (worst.pid, worst.verdict.clone());
        if summary.layer.is_none()
            && summary.leak.is_none()
            && let Some((grower, layer)) = self.most_grown()
        {
            // Too short for the watch to judge, but what grew is plain.
            pid = grower;
            summary.layer = Some(layer);
        }
        if summary.layer.is_none()
            && summary.leak == Some(false)
            && let Some(end) = ended_ns(pid)
            && let Some((grower, layer, rate)) = self.grew_to_the_end(end, &ended_ns)
        {
            // The watch forgets children that ended before it knew, but this is what there was to see.
            pid = grower;
            summary.layer = Some(layer);
            (summary.kind, summary.leak) = (Kind::Undecided, None);
            (summary.bytes_per_s, summary.interval) = (Some(rate), None);
            summary.why = format!("process {pid} grew until it ended, too soon to judge");
        }
        let layer = summary.layer.clone().unwrap_or_default();
        let grown_bytes = if summary.copies {
            self.copied_by(pid)
        } else {
            self.grown(pid, &layer) + self.unseen(pid, &summary, ended_ns(pid))
        };
        Some(Verdict { pid, summary, grown_bytes })
    }

    /// By how much a layer that grew to the end will have grown between its last look and that end.
    fn unseen(&self, pid: u32, summary: &Summary, ended_ns: Option<u64>) -> u64 {
        let grows = matches!(summary.kind, Kind::Growing | Kind::Undecided);
        let looked = summary.layer.clone().and_then(|layer| self.looked_ns.get(&(pid, layer)));
        let (Some(end), Some(looked), true) = (ended_ns, looked, grows) else { return 0 };
        since(*looked, end, summary.bytes_per_s.unwrap_or(0.0), summary.window_s / 2.0)
    }

    /// The process and the layer that grew fastest to the end of all, and how fast.
    fn grew_to_the_end(
        &self,
        end_ns: u64,
        ended_ns: impl Fn(u32) -> Option<u64>,
    ) -> Option<(u32, String, f64)> {
        let is_last = |key: &&(u32, String)| {
            ended_ns(key.0).is_some_and(|end| end.saturating_add(TOGETHER_NS) >= end_ns)
                && end_ns.saturating_sub(self.looked_ns[*key]) < UNSEEN_NS
        };
        let keys = self.looked_ns.keys().filter(|(_, layer)| does_harm(layer)).filter(is_last);
        let rising = keys.filter_map(|key| Some((rises(&self.tracks[key])?, key)));
        let (rate, (pid, layer)) = rising.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((*pid, layer.clone(), rate))
    }

    /// How much a layer grew. Where the first or last looks saw a heap only under its other name,
    /// it began no higher than that, and grew as that did.
    fn grown(&self, pid: u32, layer: &str) -> u64 {
        let track = |layer: &str| self.tracks.get(&(pid, layer.to_owned())).map(Vec::as_slice);
        let others = || alternatives(layer).filter_map(track);
        let Some([first, .., last] | [first @ last]) = track(layer) else { return 0 };
        let early = others().filter_map(|o| o.first()).filter(|p| p.0 < first.0).map(|p| p.1);
        let before = early.reduce(|a, b| a + b).unwrap_or(first.1).min(first.1);
        let own = last.1.saturating_sub(before);
        // Its last look may have seen the heap whole: the other half is as it was.
        let whole = whole_of(layer).and_then(|whole| {
            let half = halves_of(whole)?.into_iter().find(|half| *half != layer)?;
            let end = track(whole)?.last().filter(|p| p.0 > last.0)?.1;
            Some(end.saturating_sub(track(half)?.last()?.1).saturating_sub(before))
        });
        let later = others().filter(|o| o.last().is_some_and(|p| p.0 > last.0));
        own.max(whole.unwrap_or(0)).max(later.map(grown).sum())
    }

    /// The layer that grew most, of those whose growth can do harm.
    fn most_grown(&self) -> Option<(u32, String)> {
        let tracks = self.tracks.iter().filter(|((_, layer), _)| does_harm(layer));
        let grown = tracks.map(|(key, track)| (grown(track), key));
        let (_, (pid, layer)) = grown.filter(|(bytes, _)| *bytes >= 1 << 20).max()?;
        Some((*pid, layer.clone()))
    }

    /// Takes in what a look saw: of these layers.
    fn keep(&mut self, line: &Line) -> Vec<String> {
        if let Some(&bytes) = line.counters.get(&Counter::Anonymous) {
            self.counted.entry(line.pid).or_insert((bytes, bytes)).1 = bytes;
        }
        if let Some([share, _]) = line.private_share_bytes {
            self.copied.entry(line.pid).or_insert((share, share)).1 = share;
        }
        // Of a heap that is seen now whole, now in halves, only what this look saw.
        let unseen = |name: &str| alternatives(name).any(|other| line.unnamed.contains_key(other));
        let layers = line.layers.iter().map(|l| (&l.layer, l.resident_bytes));
        let seen = layers
            .filter(|(name, _)| line.sampled || line.counted.contains(name))
            .filter(|(name, _)| !unseen(name));
        let mut kept = Vec::new();
        for (name, bytes) in seen.chain(line.unnamed.iter().map(|(name, b)| (name, *b))) {
            let track = self.tracks.entry((line.pid, name.clone())).or_default();
            if track.len() >= POINTS {
                let mut i = 0;
                track.retain(|_| {
                    i += 1;
                    i % 2 == 1
                });
            }
            track.push((line.time_s, bytes));
            kept.push(name.clone());
        }
        kept
    }

    /// How much private memory grew in all, in bytes.
    pub fn grown_private(&self) -> u64 {
        self.private().map(|(_, bytes)| bytes).sum()
    }

    /// How much private memory of one process grew, in bytes: by the ledger, or, between its samples, by
    /// the kernel's count.
    pub fn grown_private_of(&self, pid: u32) -> u64 {
        let sampled: u64 = self.private().filter(|(p, _)| *p == pid).map(|(_, bytes)| bytes).sum();
        let counted = self.counted().find(|(p, _)| *p == pid).map_or(0, |(_, bytes)| bytes);
        sampled.max(counted)
    }

    fn private(&self) -> impl Iterator<Item = (u32, u64)> {
        let private = |layer: &str| {
            !matches!(layer, "code" | "files" | "shared" | "device") && !layer.contains("unmapped")
        };
        let tracks = self.tracks.iter().filter(move |((_, l), _)| private(l));
        tracks.map(|((pid, _), t)| (*pid, grown(t)))
    }

    /// By how many bytes the private memory of each process grew, as the kernel counts it at every look.
    pub fn counted(&self) -> impl Iterator<Item = (u32, u64)> {
        self.counted.iter().map(|(pid, (first, last))| (*pid, last.saturating_sub(*first)))
    }

    /// How much of what a process shared since a fork became its own.
    fn copied_by(&self, pid: u32) -> u64 {
        self.copied.get(&pid).map_or(0, |(first, last)| last.saturating_sub(*first))
    }

    /// The same of all processes.
    pub fn copied(&self) -> u64 {
        self.copied.keys().map(|pid| self.copied_by(*pid)).sum()
    }

    /// The process whose heap grew most, if one did, and by how many bytes.
    pub fn growing_heap(&self) -> Option<(u32, u64)> {
        self.growing(&["heap", "heap_in_use"])
    }

    /// The same of the arenas of Python's objects.
    pub fn growing_objects(&self) -> Option<(u32, u64)> {
        self.growing(&["python", "python_in_use"])
    }

    fn growing(&self, layers: &[&str]) -> Option<(u32, u64)> {
        let tracks = self.tracks.iter().filter(|((_, l), _)| layers.contains(&l.as_str()));
        let grown = tracks.map(|((pid, _), t)| (*pid, grown(t)));
        grown.filter(|(_, bytes)| *bytes >= 1 << 20).max_by_key(|(_, bytes)| *bytes)
    }

    /// For a timeline: every layer that ever had bytes.
    pub fn tracks(&self) -> Vec<Track> {
        let all = self.tracks.iter().filter(|(_, t)| t.iter().any(|p| p.1 > 0));
        all.map(|((pid, layer), points)| Track {
            pid: *pid,
            layer: layer.clone(),
            points: points.clone(),
        })
        .collect()
    }
}

/// The other names under which a look may see a layer.
fn alternatives(layer: &str) -> impl Iterator<Item = &'static str> {
    halves_of(layer).into_iter().flatten().chain(whole_of(layer))
}

fn grown(track: &[(f64, u64)]) -> u64 {
    match track {
        [first, .., last] => last.1.saturating_sub(first.1),
        _ => 0,
    }
}

/// Whether growth of a layer can do harm.
fn does_harm(layer: &str) -> bool {
    const HARMLESS: [&str; 6] =
        ["code", "files", "heap_retained", "python_free", "huge_page_slack", "page_tables"];
    !HARMLESS.contains(&layer)
}

/// What grew at a rate since a look, until an end: nothing where that is more than so many seconds later.
fn since(looked_ns: u64, end_ns: u64, rate: f64, most_s: f64) -> u64 {
    let unseen_s = end_ns.saturating_sub(looked_ns) as f64 / 1e9;
    if unseen_s > most_s { 0 } else { (rate.max(0.0) * unseen_s) as u64 }
}

/// The rate of what rose by megabytes, at least as fast in the last half as half of that.
fn rises(track: &[(f64, u64)]) -> Option<f64> {
    const LEAST_LOOKS: usize = 5;
    const LEAST: u64 = 4 << 20;
    let [first, .., last] = track else { return None };
    let middle = track[track.len() / 2];
    let rate = |a: &(f64, u64), b: &(f64, u64)| (b.1 as f64 - a.1 as f64) / (b.0 - a.0).max(1e-3);
    let (all, late) = (rate(first, last), rate(&middle, last));
    let rises = track.len() >= LEAST_LOOKS && grown(track) >= LEAST && late * 2.0 >= all;
    (rises && all > 0.0).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_after_the_last_look_is_reckoned_until_the_end() {
        let second = 1_000_000_000;
        assert_eq!(since(10 * second, 12 * second, 4e6, 5.0), 8_000_000);
        assert_eq!(since(10 * second, 12 * second, -4e6, 5.0), 0);
        assert_eq!(since(10 * second, 9 * second, 4e6, 5.0), 0);
        assert_eq!(since(10 * second, 99 * second, 4e6, 5.0), 0, "too long ago to know");
    }

    #[test]
    fn only_what_rose_to_the_end_is_told_of_a_child_that_ended() {
        let track = |bytes: &[u64]| -> Vec<(f64, u64)> {
            bytes.iter().enumerate().map(|(i, b)| (i as f64, b << 20)).collect()
        };
        assert_eq!(rises(&track(&[0, 4, 8, 12, 16, 20])), Some((4 << 20) as f64));
        assert_eq!(rises(&track(&[0, 20, 20, 20, 20, 20])), None, "it rose once");
        assert_eq!(rises(&track(&[0, 1, 1, 2, 2, 3])), None, "hardly");
        assert_eq!(rises(&track(&[0, 20])), None, "seen too rarely");
        let mut growth = Growth::new(Vec::new(), true);
        for (pid, layer, bytes) in [(7, "heap_in_use", 8), (8, "anonymous", 2), (9, "files", 30)] {
            let key = (pid, layer.to_owned());
            growth.tracks.insert(key.clone(), track(&[0, bytes, 2 * bytes, 3 * bytes, 4 * bytes]));
            growth.looked_ns.insert(key, 1);
        }
        let told = growth.grew_to_the_end(3, |_| Some(2)).map(|(pid, layer, _)| (pid, layer));
        assert_eq!(told, Some((7, "heap_in_use".to_owned())));
        assert!(growth.grew_to_the_end(3, |_| None).is_none(), "the watch judges those that run");
        let later = 3 + TOGETHER_NS;
        assert!(growth.grew_to_the_end(later, |_| Some(2)).is_none(), "it gave all back before");
    }
}
