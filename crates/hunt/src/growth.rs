//! Where the growth is: the ledger's layers over the hunt, and the verdict on them.

use std::collections::BTreeMap;

use plumb_ledger::watch::{self, Counter, Line, Summary, Watcher, halves_of, whole_of};
use plumb_target::Process;
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
    /// The kernel's own count of private memory, by process: first and last.
    counted: BTreeMap<u32, (u64, u64)>,
    /// The share of private memory that is shared since a fork, by process: first and last.
    copied: BTreeMap<u32, (u64, u64)>,
}

/// A full sample may cost this share of a core.
const BUDGET: f64 = 0.015;
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
            counted: BTreeMap::new(),
            copied: BTreeMap::new(),
        }
    }

    /// Looks at every process; one that has just ended is left out.
    pub fn look(&mut self) {
        for line in self.watcher.look().unwrap_or_default() {
            self.keep(&line);
        }
    }

    /// The processes that still run, of those that were looked at.
    pub fn alive(&self) -> impl Iterator<Item = Process> + '_ {
        self.watcher.alive()
    }

    /// Looks a last time and gives the verdict on the process that is worst off. `None` where no
    /// process could ever be seen.
    pub fn finish(&mut self) -> Option<Verdict> {
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
        let layer = summary.layer.clone().unwrap_or_default();
        let grown_bytes =
            if summary.copies { self.copied_by(pid) } else { self.grown(pid, &layer) };
        Some(Verdict { pid, summary, grown_bytes })
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
        let harmless =
            ["code", "files", "heap_retained", "python_free", "huge_page_slack", "page_tables"];
        let tracks = self.tracks.iter().filter(|((_, l), _)| !harmless.contains(&l.as_str()));
        let grown = tracks.map(|(key, track)| (grown(track), key));
        let (_, (pid, layer)) = grown.filter(|(bytes, _)| *bytes >= 1 << 20).max()?;
        Some((*pid, layer.clone()))
    }

    fn keep(&mut self, line: &Line) {
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
        }
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
