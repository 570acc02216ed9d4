//! A watch of living processes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    /// Since when it is watched.
    since: f64,
    /// Processor seconds that all looks at it took.
    spent: f64,
    /// What its last full sample took.
    cost: f64,
    /// When that was.
    at: f64,
    /// What was resident then.
    rss: f64,
    /// What was said last, when, and of which counters.
    said: Option<(Line, Observation)>,
    /// It grows, and it is not known yet whether that is a leak.
    growing: bool,
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
    tree: Tree,
}

/// Who is watched, children included. To find children is to look at every process of the machine.
#[derive(Debug, Default)]
struct Tree {
    found: Vec<Process>,
    at: Option<f64>,
    cost: f64,
}

impl Tree {
    /// The tree, not older than its price within a share of the budget allows; `exact`: as it is now.
    fn of(&mut self, roots: &[Process], now: f64, budget: f64, exact: bool) -> &[Process] {
        if exact || self.at.is_none_or(|at| now - at >= self.cost / (TREE * budget)) {
            let begun = cpu();
            self.found = process::tree(roots);
            self.cost = cpu() - begun;
            self.at = Some(now);
        }
        &self.found
    }
}

/// The share of the budget that goes to finding children.
const TREE: f64 = 0.3;

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
        let tree = Tree::default();
        Self { roots, options, begun, watched, spent: 0.0, troubles, tree }
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
        let mut lines: Vec<Line> = self
            .watched
            .values()
            .map(|w| w.history.line(|| nearest_limit(&w.process), true))
            .collect();
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
        let all = match self.options.children {
            true => self.tree.of(&self.roots, now, self.options.budget, full).to_vec(),
            false => self.roots.clone(),
        };
        for process in all {
            // What the tree found a while ago may be gone and forgotten.
            let known = self.watched.contains_key(&process) || self.roots.contains(&process);
            if !known && !process.is_alive() {
                continue;
            }
            self.watched.entry(process).or_insert_with(|| Watched {
                process,
                history: History::new(process.pid()),
                since: now,
                spent: 0.0,
                cost: 0.0,
                at: f64::MIN,
                rss: 0.0,
                said: None,
                growing: false,
                gone: false,
                trouble: None,
                counters_only: false,
            });
        }
        let shares = self.watched.values().filter(|w| !w.gone).count().max(1) as f64;
        let growing = self.watched.values().filter(|w| w.growing && !w.gone).count().max(1) as f64;
        let budget = self.options.budget;
        let budget = Budget { each: budget / shares, growing: DEARER * budget / growing };
        let mut lines = Vec::new();
        let mut ended = None;
        for watched in self.watched.values_mut().filter(|w| !w.gone) {
            let begun = cpu();
            match look_at(watched, now, full, budget, self.options.depth) {
                Ok(seen) => lines.push(line(watched, &seen)),
                Err(error) => {
                    watched.gone = !watched.process.is_alive();
                    ended = Some(error);
                }
            }
            watched.spent += cpu() - begun;
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

/// Processor seconds a second.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// For one process as a rule.
    each: f64,
    /// For one that grows.
    growing: f64,
}

/// Seconds between full samples of what grows while nobody knows yet where: they are as dear as they
/// are, within this many times the budget.
const BETWEEN: f64 = 13.0;
const DEARER: f64 = 4.0;
/// Seconds that walks of heaps may take where nothing asks for more; of a heap of gigabytes that
/// stands still nobody needs to know more than that, and a busy machine makes small walks long.
const WALK: f64 = 2.0;
/// Bytes by which a process must have moved to be worth a dear look at the end.
const MOVED: f64 = (1 << 20) as f64;

fn look_at(
    watched: &mut Watched,
    now: f64,
    full: bool,
    budget: Budget,
    depth: Depth,
) -> Result<Observation, Error> {
    let cheap = Observation::cheap(&watched.process)?;
    let left = budget.each * (now - watched.since) - watched.spent;
    watched.growing = watched.history.grows_unexplained();
    let age = now - watched.at;
    let first = watched.at == f64::MIN;
    let forced =
        watched.growing && age >= (watched.cost / budget.growing).clamp(BETWEEN, 2.0 * BETWEEN);
    let due = first || full || forced || left >= watched.cost;
    let seen = if due && !watched.counters_only {
        // Whether what grew is in use is worth its price; of what stands still it was seen before.
        let moved = (cheap.rss - watched.rss).abs() > MOVED.max(watched.rss / 100.0);
        let dear = forced || (full && moved);
        let walk = if dear { depth.budget } else { Duration::from_secs_f64(left.max(WALK)) };
        let split = first || moved || !full;
        let depth = Depth {
            heap: depth.heap && split,
            python: depth.python && split,
            budget: walk.min(depth.budget),
            ..depth
        };
        let begun = cpu();
        let seen = match Observation::full(&watched.process, depth) {
            Err(error @ Error::Denied { .. }) => {
                watched.trouble = Some(error);
                watched.counters_only = true;
                cheap
            }
            seen => seen?,
        };
        watched.cost = cpu() - begun;
        watched.at = now;
        watched.rss = seen.rss;
        seen
    } else {
        cheap
    };
    watched.history.observe(now, &seen);
    Ok(seen)
}

/// The line of this moment. Of what stands still the last one is told again for a while: of hundreds
/// of children most are idle.
fn line(watched: &mut Watched, seen: &Observation) -> Line {
    let now = watched.history.time();
    if let Some((line, then)) = &watched.said
        && !seen.sampled
        && then.layers == seen.layers
        && then.counters == seen.counters
        && now - line.time_s < AGAIN
        && line.verdict.leak == Some(false)
        && line.layers.iter().all(|layer| layer.leak != Some(true))
    {
        return Line { time_s: now, sampled: false, unnamed: BTreeMap::new(), ..line.clone() };
    }
    let line = watched.history.line(|| nearest_limit(&watched.process), false);
    let counters = Observation { sampled: false, ..seen.clone() };
    watched.said = (!seen.sampled).then(|| (line.clone(), counters));
    line
}

/// For so many seconds what stands still is told again unjudged.
const AGAIN: f64 = 10.0;
