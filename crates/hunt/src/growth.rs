//! Where the growth is: the ledger's layers over the hunt, and the verdict on them.

use std::collections::BTreeMap;

use plumb_ledger::watch::{self, Line, Summary, Watcher};
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
}

/// A full sample may cost this share of a core.
const BUDGET: f64 = 0.015;
/// Points kept of a track.
const POINTS: usize = 1024;

impl Growth {
    /// Looks at nothing yet.
    pub fn new(roots: Vec<Process>, children: bool) -> Self {
        let options = watch::Options { children, budget: BUDGET, ..watch::Options::default() };
        Self { watcher: Watcher::new(roots, options), tracks: BTreeMap::new() }
    }

    /// Looks at every process; one that has just ended is left out.
    pub fn look(&mut self) {
        for line in self.watcher.look().unwrap_or_default() {
            self.keep(&line);
        }
    }

    /// Looks a last time and gives the verdict on the process that is worst off. `None` where no
    /// process could ever be seen.
    pub fn finish(&mut self) -> Option<Verdict> {
        let lines = self.watcher.finish().ok()?;
        for line in &lines {
            self.keep(line);
        }
        let worst = lines.last()?;
        let summary = worst.verdict.clone();
        let layer = summary.layer.clone().unwrap_or_default();
        let grown_bytes = self.tracks.get(&(worst.pid, layer)).map_or(0, |t| grown(t));
        Some(Verdict { pid: worst.pid, summary, grown_bytes })
    }

    fn keep(&mut self, line: &Line) {
        if !line.sampled {
            return;
        }
        for layer in &line.layers {
            let track = self.tracks.entry((line.pid, layer.layer.clone())).or_default();
            if track.len() >= POINTS {
                let mut i = 0;
                track.retain(|_| {
                    i += 1;
                    i % 2 == 1
                });
            }
            track.push((line.time_s, layer.resident_bytes));
        }
    }

    /// How much private memory grew in all, in bytes.
    pub fn grown_private(&self) -> u64 {
        let private = |layer: &str| {
            !matches!(layer, "code" | "files" | "shared" | "device") && !layer.contains("unmapped")
        };
        self.tracks.iter().filter(|((_, l), _)| private(l)).map(|(_, t)| grown(t)).sum()
    }

    /// The process whose heap grew most, if one did, and by how many bytes.
    pub fn growing_heap(&self) -> Option<(u32, u64)> {
        let heaps =
            self.tracks.iter().filter(|((_, l), _)| matches!(l.as_str(), "heap" | "heap_in_use"));
        let grown = heaps.map(|((pid, _), t)| (*pid, grown(t)));
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

fn grown(track: &[(f64, u64)]) -> u64 {
    match track {
        [first, .., last] => last.1.saturating_sub(first.1),
        _ => 0,
    }
}
