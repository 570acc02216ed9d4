//! One process under watch.

use std::collections::BTreeMap;
use std::time::Duration;

use plumb_target::cgroups::Quotas;
use plumb_target::rollup::Rollup;
use plumb_target::{Error, Process};

use super::copying::Copying;
use super::held::HeldFiles;
use super::pace::cpu;
use super::{Counter, History, Line, Observation, nearest_limit};
use crate::Depth;

/// Seconds that walks of heaps may take where nothing asks for more; of a heap of gigabytes that
/// stands still nobody needs to know more than that, and a busy machine makes small walks long.
const WALK: Duration = Duration::from_secs(2);
/// Bytes by which a process must have moved to be worth a dear look.
const MOVED: f64 = (1 << 20) as f64;
/// What moves less from one look to the next stands still.
const STILL: f64 = (64 << 10) as f64;
/// For so many seconds what stands still is told again unjudged.
const AGAIN: f64 = 10.0;

/// A process, what was seen of it, and what that cost.
#[derive(Debug)]
pub(super) struct Watched {
    pub process: Process,
    pub history: History,
    /// Since when it is watched.
    pub since: f64,
    /// When its counters were read last.
    pub looked: f64,
    /// When it was last sampled in full.
    pub sampled: f64,
    /// What that took, in processor seconds.
    pub cost: f64,
    /// It grows, and it is not known yet whether that is a leak.
    pub grows: bool,
    /// It has ended.
    pub gone: bool,
    /// Why only its counters can be seen; taken when it is told.
    pub trouble: Option<Error>,
    /// It was tried, and is not tried again.
    pub counters_only: bool,
    /// What was said last.
    pub said: Option<Line>,
    /// When that was judged, and of which counters, where it may be told again.
    still: Option<(f64, Observation)>,
    /// What is known of this moment.
    seen: Observation,
    /// What limits its processor time.
    quotas: Quotas,
    /// Memory that moves no counter.
    files: HeldFiles,
    copying: Copying,
    /// What asking for that cost last.
    pub copying_cost: f64,
    /// What was resident when it was sampled, before that when it was first looked at; and by how much
    /// that changed between the last two looks.
    rss: f64,
    step: f64,
}

impl Watched {
    pub fn new(process: Process, now: f64) -> Self {
        Self {
            process,
            history: History::new(process.pid()).begun_at(process.start_ticks()),
            since: now,
            looked: f64::MIN,
            sampled: f64::MIN,
            cost: 0.0,
            grows: false,
            gone: false,
            trouble: None,
            counters_only: false,
            said: None,
            still: None,
            seen: Observation::default(),
            quotas: Quotas::of(&process),
            files: HeldFiles::default(),
            copying: Copying::default(),
            copying_cost: 0.0,
            rss: 0.0,
            step: 0.0,
        }
    }

    pub fn was_sampled(&self) -> bool {
        self.sampled > f64::MIN
    }

    /// Whether it was not the same in the last two looks, or grows in any way.
    pub fn is_moving(&self) -> bool {
        self.grows
            || self.step >= STILL
            || self.said.as_ref().is_some_and(|line| line.verdict.leak == Some(true))
    }

    /// Whether it is another than it was when it was sampled.
    pub fn has_moved(&self) -> bool {
        (self.seen.rss - self.rss).abs() > MOVED.max(self.rss / 100.0)
    }

    /// Whether it was never looked at.
    pub fn is_new(&self) -> bool {
        self.looked == f64::MIN
    }

    /// Finds out what of its memory it has from its parent.
    pub fn ask_what_it_inherited(&mut self) {
        self.seen.inherited =
            Rollup::read(&self.process).ok().map(|sums| sums.shared_since_fork() as f64);
    }

    /// Reads its counters; `child`: of one whose parent is watched, too.
    pub fn count(&mut self, now: f64, child: bool) -> Result<(), Error> {
        let mut seen = Observation::cheap_of_java(&self.process, self.seen.java_data.as_ref())?;
        seen.inherited = self.seen.inherited;
        seen.of_others = self.seen.of_others;
        if child && self.is_new() && seen.inherited.is_none() {
            // Nothing that it came with is known to be its own.
            seen.inherited = seen.counters.get(&Counter::Anonymous).copied();
        }
        seen.throttled_s = self.quotas.throttled_s();
        let held = self.files.unmapped(&self.process, now, seen.shared());
        seen.layers.extend(held.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
        self.step = (seen.rss - self.seen.rss).abs();
        if self.looked == f64::MIN {
            // What it came with is no movement.
            self.rss = seen.rss;
        }
        // What moves much may have become another program.
        if self.looked == f64::MIN || self.step > MOVED {
            self.history.set_name(self.process.name().unwrap_or_default());
        }
        self.seen = seen;
        self.looked = now;
        Ok(())
    }

    /// Whether it may copy what it shares, as it was just looked at.
    pub fn may_copy(&mut self, now: f64) -> bool {
        self.copying.is_due(&mut self.seen, now)
    }

    /// Asks how much of its private memory is its own.
    pub fn count_copies(&mut self, now: f64) {
        let begun = cpu();
        self.copying.ask(&self.process, &mut self.seen, now);
        self.copying_cost = cpu() - begun;
    }

    /// What is not mapped of each memfd that it holds, by inode.
    pub fn memfds(&self) -> &[(u64, f64)] {
        self.files.memfds()
    }

    /// Says how many bytes of them others answer for.
    pub fn set_of_others(&mut self, bytes: f64) {
        self.seen.of_others = (bytes > 0.0 || self.seen.of_others.is_some()).then_some(bytes);
    }

    /// Samples it in full; `last`: for the last time, `sought`: to learn where it grows.
    pub fn sample(&mut self, now: f64, depth: Depth, last: bool, sought: bool) {
        // Whether what grew is in use is worth its price; of what stands still it was seen before.
        let moved = self.has_moved();
        let dear = sought || (last && moved);
        let split = !self.was_sampled() || moved || !last;
        let depth = Depth {
            heap: depth.heap && split,
            python: depth.python && split,
            budget: if dear { depth.budget } else { WALK.min(depth.budget) },
            ..depth
        };
        let begun = cpu();
        match Observation::full(&self.process, depth) {
            Ok(seen) => {
                self.quotas = Quotas::of(&self.process);
                self.files.sampled(&seen);
                let Observation { throttled_s, inherited, private_share, of_others, .. } =
                    self.seen;
                self.seen =
                    Observation { throttled_s, inherited, private_share, of_others, ..seen };
            }
            Err(error @ Error::Denied { .. }) => {
                self.trouble = Some(error);
                self.counters_only = true;
            }
            // It has ended meanwhile: the next look will find that.
            Err(_) => {}
        }
        self.cost = cpu() - begun;
        self.sampled = now;
        self.rss = self.seen.rss;
    }

    /// Remembers what this look saw, and says it. Of what stands still the last line is told again for
    /// a while: of hundreds of children most are idle.
    pub fn line(&mut self) -> Option<Line> {
        let now = self.looked;
        self.history.observe(now, &self.seen);
        if let (Some(line), Some((judged, then))) = (&mut self.said, &self.still)
            && !self.seen.sampled
            && then.layers == self.seen.layers
            && then.counters == self.seen.counters
            && then.private_share == self.seen.private_share
            && then.of_others == self.seen.of_others
            && now - judged < AGAIN
            && line.verdict.leak == Some(false)
            && line.layers.iter().all(|layer| layer.leak != Some(true))
        {
            (line.time_s, line.sampled, line.unnamed) = (now, false, BTreeMap::new());
            (line.shared_bound_bytes, line.code_data_bytes) = (None, None);
            line.java_heap = self.seen.java_heap;
            line.scheduled_s = self.history.scheduled_s();
            return Some(line.clone());
        }
        let line = self.history.line(|| nearest_limit(&self.process), false);
        self.grows = line.verdict.leak != Some(true) && self.history.grows();
        self.still = (!self.seen.sampled).then(|| (now, self.seen.clone()));
        self.said = Some(line.clone());
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_only_looked_at_has_not_moved() {
        let mut watched = Watched::new(Process::own(), 0.0);
        watched.count(0.0, false).expect("it runs");
        assert!(watched.seen.rss > MOVED && !watched.has_moved());
        // Else the end of a watch would sample every child that was never worth it.
        watched.seen.rss *= 3.0;
        assert!(watched.has_moved());
    }
}
