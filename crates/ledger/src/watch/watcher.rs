//! A watch of living processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use plumb_target::{Error, Process, process, select};

use super::ending::ended_with_all;
use super::pace::{Purse, cpu};
use super::tree::{self, Member};
use super::watched::Watched;
use super::{Line, nearest_limit};
use crate::Depth;
use crate::verdict::When;

/// How a watch looks.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Follow the children of the processes named.
    pub children: bool,
    /// How much of one core looking may cost, as a share.
    pub budget: f64,
    /// How deep a full sample looks.
    pub depth: Depth,
    /// Whether the last look is a full sample, however fresh the one before it is.
    pub exact_end: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { children: true, budget: 0.01, depth: Depth::FULL, exact_end: false }
    }
}

/// Looks at processes, and remembers.
#[derive(Debug)]
pub struct Watcher {
    roots: Vec<Process>,
    /// Names, cgroups and containers: who answers to them later joins.
    patterns: Vec<String>,
    /// Those that did and run, and what of those that were named is to be told.
    joined: BTreeSet<Process>,
    changes: Vec<Change>,
    options: Options,
    begun: Instant,
    /// When any process was seen last.
    latest: f64,
    watched: BTreeMap<Process, Watched>,
    /// Last words on children that leaked and have ended.
    ended: Vec<Line>,
    purse: Purse,
    /// What the first full sample of a process costs, as the last one did.
    first_cost: f64,
    /// What it cost last to ask what a child has from its parent.
    inherited_cost: f64,
    troubles: Vec<Error>,
    seen: bool,
    /// Children that ended, for what all hold together; that, and when it was judged.
    past: Vec<Member>,
    together: Option<Line>,
    judged: f64,
}

/// What happened to a process that was named, or that answers to a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The process.
    pub pid: u32,
    /// What it was called last.
    pub name: String,
    /// It has ended; else it joined.
    pub ended: bool,
}

/// Where all that answer to a pattern have ended, others may be started in their place within so many seconds.
const RESTART: f64 = 10.0;
/// More last words than that nobody reads; those of the fastest leaks are kept.
const MOST_ENDED: usize = 64;
/// Seconds between full samples of what grows while nobody knows yet where.
const BETWEEN: f64 = 13.0;
/// What was sampled so few seconds before the end is known well enough.
const FRESH: f64 = 1.5;
/// A child may be gone before it is worth a full sample.
const YOUNG: f64 = 2.0;
/// Seconds between two judgements of all together.
const TOGETHER: f64 = 5.0;

impl Watcher {
    /// Begins to watch; nothing is looked at before the first [`Watcher::look`].
    pub fn new(roots: Vec<Process>, options: Options) -> Self {
        Self {
            roots,
            patterns: Vec::new(),
            joined: BTreeSet::new(),
            changes: Vec::new(),
            options,
            begun: Instant::now(),
            latest: 0.0,
            watched: BTreeMap::new(),
            ended: Vec::new(),
            purse: Purse::new(options.budget),
            first_cost: 0.005,
            inherited_cost: 0.0,
            troubles: Vec::new(),
            seen: false,
            past: Vec::new(),
            together: None,
            judged: 0.0,
        }
    }

    /// Whoever answers to one of these later joins the watch: a name pattern, a cgroup, a container's id.
    #[must_use]
    pub fn following(self, patterns: Vec<String>) -> Self {
        Self { patterns, ..self }
    }

    /// Who joined, and who of those that were named or joined has ended, since this was asked last.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Seconds since the watch began.
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// What looking has cost so far, as a share of one core.
    pub fn cost(&self) -> f64 {
        self.purse.spent() / self.elapsed().max(1e-9)
    }

    /// Charges what else was spent on the watch, as on telling of it: looks become rarer for it.
    pub fn charge(&mut self, seconds: f64) {
        self.purse.pay(seconds);
    }

    /// Looks at processes and gives a line for each that was looked at: at every one of a few, in turn
    /// at those of many that stand still.
    ///
    /// # Errors
    /// Where no process was ever seen: what stood in the way.
    pub fn look(&mut self) -> Result<Vec<Line>, Error> {
        let lines = self.look_at_all(false);
        self.forget();
        lines
    }

    /// Looks a last time, in full at what was named and what moved, and gives the final line of every
    /// process that was ever seen, the worst verdict last.
    ///
    /// # Errors
    /// As [`Watcher::look`].
    pub fn finish(&mut self) -> Result<Vec<Line>, Error> {
        self.look_at_all(true)?;
        self.forget();
        let (past, last): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.watched).into_iter().partition(|(_, w)| self.is_past(w));
        self.watched = last;
        self.past.extend(past.values().filter_map(|w| Member::new(&w.history, None, true)));
        tree::forget(&mut self.past, self.latest);
        let lives = tree::lives(&self.past, self.latest);
        self.ended.extend(past.values().filter_map(|w| w.history.last_words(self.latest, &lives)));
        let last = self.watched.values_mut().map(|w| {
            let line = w.history.last_line(|| nearest_limit(&w.process), &lives);
            w.said.insert(Line { ended: w.gone, ..line }).clone()
        });
        let mut lines: Vec<Line> = self.ended.iter().cloned().chain(last).collect();
        Line::worst_last(&mut lines);
        Ok(lines)
    }

    /// What all processes hold together, from the second one on, where it is to be told: at the end, or
    /// when it is called a leak, or was. After [`Watcher::look`] or [`Watcher::finish`].
    pub fn together(&mut self, last: bool) -> Option<Line> {
        let now = self.elapsed();
        if !last && now - self.judged < TOGETHER {
            return None;
        }
        let begun = cpu();
        let when = if last { When::Ending } else { When::Watching };
        tree::forget(&mut self.past, self.latest);
        let living = self.watched.values().filter_map(|w| {
            let said = w.said.as_ref().map(|line| &line.verdict).filter(|_| !self.is_past(w));
            Member::new(&w.history, said, self.ended_before(w))
        });
        let living: Vec<Member> = living.collect();
        let members: Vec<&Member> = self.past.iter().chain(&living).collect();
        let limit = || self.roots.first().and_then(nearest_limit);
        let line = tree::line(&members, limit, when);
        let called =
            |line: &Option<Line>| line.as_ref().is_some_and(|l| l.verdict.leak == Some(true));
        let news = last || called(&line) || called(&self.together);
        self.together = line;
        self.judged = now;
        self.purse.pay(cpu() - begun);
        self.together.clone().filter(|_| news)
    }

    /// Puts what all processes hold together beside the final lines.
    pub fn beside(&mut self, lines: &mut Vec<Line>) {
        let together = self.together(true);
        tree::beside(lines, together);
    }

    /// The latest line of every process that runs, and of all together where they leak.
    pub fn latest(&self) -> impl Iterator<Item = &Line> {
        let together = self.together.iter().filter(|line| line.verdict.leak == Some(true));
        let each = self.watched.values().filter(|w| !w.gone).filter_map(|w| w.said.as_ref());
        each.chain(together)
    }

    /// Whether this is a process that is watched and runs.
    pub fn watches(&self, pid: u32) -> bool {
        pid == 0 || self.watched.values().any(|w| !w.gone && w.process.pid() == pid)
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

    /// Whether none of the processes named, nor a child of theirs, runs any more, nor is started again.
    pub fn is_over(&self) -> bool {
        let waits = !self.patterns.is_empty() && self.elapsed() - self.latest < RESTART;
        self.seen && !waits && self.are_gone()
    }

    fn are_gone(&self) -> bool {
        self.watched.values().all(|w| w.gone)
    }

    /// Whether it ended before all did.
    fn ended_before(&self, w: &Watched) -> bool {
        w.gone && w.history.time() < self.latest
    }

    /// Whether it is a child that did.
    fn is_past(&self, w: &Watched) -> bool {
        self.ended_before(w) && !self.roots.contains(&w.process)
    }

    /// Of children that ended only their last words are remembered; not yet of those with which all may
    /// have ended.
    fn forget(&mut self) {
        let (roots, ended, past) = (&self.roots, &mut self.ended, &mut self.past);
        let latest = self.latest;
        self.watched.retain(|process, w| {
            let keep =
                !w.gone || roots.contains(process) || ended_with_all(w.history.time(), latest);
            if !keep {
                past.extend(Member::new(&w.history, None, true));
                ended.extend(w.history.last_words(latest, &[]));
            }
            keep
        });
        if ended.len() > MOST_ENDED {
            let rate = |line: &Line| line.verdict.bytes_per_s.unwrap_or(0.0);
            ended.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
            ended.truncate(MOST_ENDED);
        }
    }

    /// Takes in what is to be watched by now.
    fn find(&mut self, now: f64, exact: bool) {
        let begun = cpu();
        let more = self.options.children || !self.patterns.is_empty();
        let mut found = self.roots.clone();
        if more && (exact || self.are_gone() || self.purse.may_find_children(now)) {
            // Children of one that has ended are nobody's, but they are watched on.
            let alive = self.watched.values().filter(|w| !w.gone).map(|w| w.process);
            found.extend(alive);
            for member in self.patterns.iter().flat_map(|p| select::resolve(p).unwrap_or_default())
            {
                found.push(member);
                if !self.roots.contains(&member) && self.joined.insert(member) {
                    let name = member.name().unwrap_or_default();
                    self.changes.push(Change { pid: member.pid(), name, ended: false });
                }
            }
            if self.options.children {
                found = process::tree(&found);
            }
            self.purse.pay_for_tree(cpu() - begun, now);
        }
        for process in found {
            self.watched.entry(process).or_insert_with(|| Watched::new(process, now));
        }
    }

    fn look_at_all(&mut self, full: bool) -> Result<Vec<Line>, Error> {
        let now = self.elapsed();
        self.find(now, full);
        let begun = cpu();
        let (alive, moving) = self
            .watched
            .values()
            .filter(|w| !w.gone)
            .fold((0, 0), |n, w| (n.0 + 1, n.1 + usize::from(w.is_moving())));
        let (mut due, mut ended) = (Vec::new(), None);
        for watched in self.watched.values_mut().filter(|w| !w.gone) {
            let moves = watched.is_moving() || self.roots.contains(&watched.process);
            let of = if moves { moving } else { alive };
            let since = now - watched.looked;
            if !full && !self.purse.may_look(since, of, moves) {
                continue;
            }
            let child = !self.roots.contains(&watched.process);
            if child && watched.is_new() && self.purse.affords(self.inherited_cost, now, true) {
                let begun = cpu();
                watched.ask_what_it_inherited();
                self.inherited_cost = cpu() - begun;
            }
            match watched.count(now, child) {
                Ok(()) => due.push(watched.process),
                Err(error) => {
                    watched.gone = !watched.process.is_alive();
                    if watched.gone && (!child || self.joined.remove(&watched.process)) {
                        let name = watched.history.name().to_owned();
                        let pid = watched.process.pid();
                        self.changes.push(Change { pid, name, ended: true });
                    }
                    ended = Some(error);
                }
            }
        }
        let counted = cpu();
        if !due.is_empty() {
            (self.seen, self.latest) = (true, now);
        }
        self.count_copies(&due, now, full);
        self.sample(&due, now, full);
        self.count_memfds_once(&due);
        let sampled = cpu();
        let lines = due.iter().filter_map(|p| self.watched.get_mut(p)?.line()).collect();
        let spent = (counted - begun) + (cpu() - sampled);
        self.purse.pay_for_counters(spent, due.len());
        match ended {
            Some(error) if !self.seen => Err(error),
            _ => Ok(lines),
        }
    }

    /// Of those that were just looked at, asks who may copy what it shares, as many as can be afforded.
    fn count_copies(&mut self, due: &[Process], now: f64, full: bool) {
        for process in due {
            let Some(watched) = self.watched.get_mut(process) else { continue };
            if !watched.counters_only
                && watched.may_copy(now)
                && (full || self.purse.affords_copies(watched.copying_cost, now))
            {
                watched.count_copies(now);
                self.purse.pay_for_copies(watched.copying_cost);
            }
        }
    }

    /// A memfd that several hold counts for the first of them wherever they are added up.
    fn count_memfds_once(&mut self, due: &[Process]) {
        let mut first = BTreeMap::<u64, Process>::new();
        for watched in self.watched.values().filter(|w| !w.gone) {
            for (inode, _) in watched.memfds() {
                first.entry(*inode).or_insert(watched.process);
            }
        }
        for process in due {
            let Some(watched) = self.watched.get_mut(process) else { continue };
            let others = watched.memfds().iter().filter(|(inode, _)| first[inode] != *process);
            let bytes = others.map(|(_, bytes)| bytes).sum();
            watched.set_of_others(bytes);
        }
    }

    /// Samples in full as many of those that were just looked at as can be afforded: first what must be,
    /// then what grows, then whoever was not looked at for longest; what moved comes twice as often.
    fn sample(&mut self, due: &[Process], now: f64, full: bool) {
        let roots = &self.roots;
        let fresh = if self.options.exact_end { 0.0 } else { FRESH };
        let mut order: Vec<(u8, f64, Process)> = Vec::new();
        for watched in due.iter().filter_map(|process| self.watched.get(process)) {
            let named = roots.contains(&watched.process);
            // A memfd that is held by a descriptor moves no counter: what stands still has its turn, too.
            let age = now - watched.sampled;
            let turn = if watched.has_moved() { 2.0 * age } else { age };
            let rank = match watched.has_moved() {
                _ if watched.counters_only => continue,
                _ if full && age < fresh => continue,
                _ if named && (full || !watched.was_sampled()) => 0,
                true if full => 0,
                _ if full => continue,
                _ if watched.grows && age >= BETWEEN => 1,
                _ if !named && now - watched.since < YOUNG => continue,
                _ => 2,
            };
            order.push((rank, -turn, watched.process));
        }
        let of_named = self.watched.values().filter(|w| roots.contains(&w.process));
        self.purse.keep(of_named.filter(|w| w.was_sampled()).map(|w| w.cost).sum());
        order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (rank, _, process) in order {
            let Some(watched) = self.watched.get_mut(&process) else { continue };
            let cost = if watched.was_sampled() { watched.cost } else { self.first_cost };
            if rank > 0 && !self.purse.affords(cost, now, rank == 1) {
                continue;
            }
            let first = !watched.was_sampled();
            watched.sample(now, self.options.depth, full, rank == 1);
            self.purse.pay(watched.cost);
            if first {
                self.first_cost = watched.cost;
            }
            self.troubles.extend(watched.trouble.take().filter(|_| roots.contains(&process)));
        }
    }
}
