//! A watch of living processes.

use std::collections::BTreeMap;
use std::time::Instant;

use plumb_target::{Error, Process, process};

use super::{History, Line, Observation, nearest_limit};
use crate::Depth;

/// How a watch looks.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Follow the children of the processes named.
    pub children: bool,
    /// How much of one core full samples may cost, as a share.
    pub budget: f64,
    /// How deep a full sample looks.
    pub depth: Depth,
}

impl Default for Options {
    fn default() -> Self {
        Self { children: true, budget: 0.01, depth: Depth::FULL }
    }
}

#[derive(Debug)]
struct Watched {
    process: Process,
    history: History,
    /// Seconds that its last full sample took.
    cost: f64,
    /// When that was.
    at: f64,
    /// It has ended; its last line was or will be given once.
    gone: bool,
}

/// Looks at processes, and remembers.
#[derive(Debug)]
pub struct Watcher {
    roots: Vec<Process>,
    options: Options,
    begun: Instant,
    watched: BTreeMap<Process, Watched>,
    spent: f64,
}

impl Watcher {
    /// Begins to watch; nothing is looked at before the first [`Watcher::look`].
    pub fn new(roots: Vec<Process>, options: Options) -> Self {
        Self { roots, options, begun: Instant::now(), watched: BTreeMap::new(), spent: 0.0 }
    }

    /// Seconds since the watch began.
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// What looking has cost so far, as a share of one core.
    pub fn cost(&self) -> f64 {
        self.spent / self.elapsed().max(1e-9)
    }

    /// Looks at every process once and gives a line for each that could be seen.
    ///
    /// # Errors
    /// Where no process was ever seen: what stood in the way.
    pub fn look(&mut self) -> Result<Vec<Line>, Error> {
        self.look_at_all(false)
    }

    /// Looks a last time, in full, and gives the final line of every process that was ever seen,
    /// the worst verdict last.
    ///
    /// # Errors
    /// As [`Watcher::look`].
    pub fn finish(&mut self) -> Result<Vec<Line>, Error> {
        self.look_at_all(true)?;
        let mut lines: Vec<Line> = self.watched.values().map(|w| line(w, true)).collect();
        lines.sort_by(|a, b| {
            let key = |l: &Line| (l.verdict.severity(), l.verdict.bytes_per_s.unwrap_or(0.0));
            let ((a_severity, a_rate), (b_severity, b_rate)) = (key(a), key(b));
            a_severity.cmp(&b_severity).then(a_rate.total_cmp(&b_rate))
        });
        Ok(lines)
    }

    /// Whether none of the processes named, nor a child of theirs, runs any more.
    pub fn is_over(&self) -> bool {
        !self.watched.is_empty() && self.watched.values().all(|w| w.gone)
    }

    fn look_at_all(&mut self, full: bool) -> Result<Vec<Line>, Error> {
        let now = self.elapsed();
        let begun = Instant::now();
        let all =
            if self.options.children { process::tree(&self.roots) } else { self.roots.clone() };
        for process in all {
            self.watched.entry(process).or_insert_with(|| Watched {
                process,
                history: History::new(process.pid()),
                cost: 0.0,
                at: f64::MIN,
                gone: false,
            });
        }
        let shares = self.watched.values().filter(|w| !w.gone).count().max(1) as f64;
        let mut lines = Vec::new();
        let mut failure = None;
        for watched in self.watched.values_mut().filter(|w| !w.gone) {
            let budget = self.options.budget / shares;
            match look_at(watched, now, full, budget, self.options.depth) {
                Ok(()) => lines.push(line(watched, false)),
                Err(error) => {
                    watched.gone = !watched.process.is_alive();
                    failure = Some(error);
                }
            }
        }
        self.spent += begun.elapsed().as_secs_f64();
        self.watched.retain(|_, w| w.at > f64::MIN || !w.gone);
        match failure {
            Some(error) if self.watched.values().all(|w| w.at == f64::MIN) => Err(error),
            _ => Ok(lines),
        }
    }
}

fn look_at(
    watched: &mut Watched,
    now: f64,
    full: bool,
    budget: f64,
    depth: Depth,
) -> Result<(), Error> {
    let due = now - watched.at >= watched.cost / budget || watched.history.wants_full();
    let seen = if full || due {
        let begun = Instant::now();
        let seen = Observation::full(&watched.process, depth)?;
        watched.cost = begun.elapsed().as_secs_f64();
        watched.at = now;
        seen
    } else {
        Observation::cheap(&watched.process)?
    };
    watched.history.observe(now, &seen);
    Ok(())
}

fn line(watched: &Watched, last: bool) -> Line {
    let limit = nearest_limit(&watched.process);
    watched.history.line(limit.as_ref(), last)
}
