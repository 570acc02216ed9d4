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
    /// Why only its counters can be seen; taken when it is told.
    trouble: Option<Error>,
    /// It was tried, and is not tried again.
    counters_only: bool,
}

/// Looks at processes, and remembers.
#[derive(Debug)]
pub struct Watcher {
    roots: Vec<Process>,
    options: Options,
    begun: Instant,
    watched: BTreeMap<Process, Watched>,
    spent: f64,
    troubles: Vec<Error>,
}

/// Processor seconds of this thread: on a busy machine, waiting is not cost.
fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

impl Watcher {
    /// Begins to watch; nothing is looked at before the first [`Watcher::look`].
    pub fn new(roots: Vec<Process>, options: Options) -> Self {
        let begun = Instant::now();
        let (watched, troubles) = (BTreeMap::new(), Vec::new());
        Self { roots, options, begun, watched, spent: 0.0, troubles }
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

    /// Why layers of processes that were named cannot be seen, each told once: their counters are
    /// watched all the same.
    pub fn troubles(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.troubles)
    }

    /// The processes that still run.
    pub fn alive(&self) -> impl Iterator<Item = Process> + '_ {
        self.watched.values().map(|w| w.process).filter(Process::is_alive)
    }

    /// A child that ended gave its memory back: of those, only leaks are remembered. Else a script
    /// that starts a thousand short programs would leave a thousand open questions.
    fn forget(&mut self) {
        let roots = &self.roots;
        self.watched.retain(|process, w| {
            let named = roots.contains(process) && w.at > f64::MIN;
            !w.gone || named || w.history.leaks()
        });
    }

    /// Whether none of the processes named, nor a child of theirs, runs any more.
    pub fn is_over(&self) -> bool {
        !self.watched.is_empty() && self.watched.values().all(|w| w.gone)
    }

    fn look_at_all(&mut self, full: bool) -> Result<Vec<Line>, Error> {
        let now = self.elapsed();
        let begun = cpu();
        let all =
            if self.options.children { process::tree(&self.roots) } else { self.roots.clone() };
        for process in all {
            self.watched.entry(process).or_insert_with(|| Watched {
                process,
                history: History::new(process.pid()),
                cost: 0.0,
                at: f64::MIN,
                gone: false,
                trouble: None,
                counters_only: false,
            });
        }
        let shares = self.watched.values().filter(|w| !w.gone).count().max(1) as f64;
        let budget = self.options.budget / shares;
        let mut lines = Vec::new();
        let mut ended = None;
        for watched in self.watched.values_mut().filter(|w| !w.gone) {
            match look_at(watched, now, full, budget, self.options.depth) {
                Ok(()) => lines.push(line(watched, false)),
                Err(error) => {
                    watched.gone = !watched.process.is_alive();
                    ended = Some(error);
                }
            }
            let named = self.roots.contains(&watched.process);
            self.troubles.extend(watched.trouble.take().filter(|_| named));
        }
        self.spent += cpu() - begun;
        let unseen = self.watched.values().all(|w| w.at == f64::MIN);
        if !full {
            self.forget();
        }
        match ended {
            Some(error) if unseen => Err(error),
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
    let seen = if (full || due) && !watched.counters_only {
        let begun = cpu();
        let seen = match Observation::full(&watched.process, depth) {
            Err(error @ Error::Denied { .. }) => {
                watched.trouble = Some(error);
                watched.counters_only = true;
                Observation::cheap(&watched.process)?
            }
            seen => seen?,
        };
        watched.cost = cpu() - begun;
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
