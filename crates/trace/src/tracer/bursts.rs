//! When the allocator is probed, and what is made of what was seen.

use std::time::{Duration, Instant};

use plumb_target::Process;

use super::Tracer;
use crate::Error;
use crate::account::StackId;
use crate::burst::{BURST, Bursts, Grows, Of};
use crate::events::Event;
use crate::samples::{Given, Kept};

/// What a probed call costs the target: its traps, and the naming of its stack.
const CALL_COST: Duration = Duration::from_micros(6);
/// Probing takes at most one part in this of the target's time: 5 %.
const BURST_SHARE: u32 = 20;
/// Bursts are no closer than this. Of objects most live for moments only: these take more of them.
const fn least(of: Of) -> Duration {
    Duration::from_millis(match of {
        Of::Heap => 150,
        Of::Objects => 50,
    })
}
/// Where so many allocations stayed that more of them say little, bursts are as many times further apart.
const PLENTY_KEPT: u64 = 300;
const RARER: u32 = 3;
/// Objects that were just seen are looked at again and again, for one part in this of the time.
const GLANCE_SHARE: u32 = 80;
/// How often they are marked while a burst lasts.
const MARKINGS: u32 = 4;
/// After so many markings without another the probes are off.
const QUIET: u32 = 2;
/// They are off by then.
const LEAVING: Duration = Duration::from_millis(40);
/// And no more often than this, nor than in this part of the time since their burst.
const GLANCE_LEAST: Duration = Duration::from_millis(4);
const GLANCE_PART: u32 = 2;
/// How often it is asked whether a burst's probes are off.
const ASK_OFF: Duration = Duration::from_millis(20);
/// A program that tells of its allocations has told of one by then.
const PATIENCE: Duration = Duration::from_secs(3);

impl Tracer {
    pub(super) fn allocated(&mut self, event: &Event, stack: StackId) {
        if let Some(bursts) = &mut self.bursts {
            let (address, [bytes, old, size, ..]) = (event.ret.cast_unsigned(), event.args);
            bursts.samples_mut().given(address, Given { bytes, size }, old, stack, event.time_ns);
        }
    }

    pub(super) fn freed(&mut self, address: u64) {
        if let Some(bursts) = &mut self.bursts {
            bursts.samples_mut().given_back(address);
        }
    }

    /// Has the allocations of a process probed from now on, and no others any more.
    ///
    /// # Errors
    /// Why they cannot be probed.
    pub fn burst_on(&mut self, process: &Process, of: Of) -> Result<(), Error> {
        let is_on = self.bursts.as_ref().is_some_and(|b| b.pid() == process.pid() && b.of() == of);
        if !is_on {
            let new = Bursts::new(process, of, &mut self.probe)?;
            self.end_bursts();
            (self.bursts, self.burst_events, self.telling) = (Some(new), None, None);
            self.fates.clear();
        }
        Ok(())
    }

    /// Probes nobody any more, and forgets what was seen.
    pub fn forget_bursts(&mut self) {
        self.end_bursts();
        (self.bursts, self.burst_events, self.telling) = (None, None, None);
        self.fates.clear();
    }

    /// Whose allocations are probed: a process, and which of its.
    pub fn burst_of(&self) -> Option<(u32, Of)> {
        self.bursts.as_ref().map(|b| (b.pid(), b.of()))
    }

    /// Has the probes on by which a program tells of its own samples: on until it tells so much that it
    /// costs more than bursts may, or nothing at all. Whether that is how it is probed.
    fn listen(&mut self) -> bool {
        let calls = self.probe.counters().calls();
        let Some(bursts) = self.bursts.as_mut().filter(|bursts| bursts.tells()) else {
            return false;
        };
        let Some((since, before)) = self.telling else {
            if bursts.on(&mut self.probe).is_err() {
                bursts.stop_telling();
            }
            self.telling = Some((Instant::now(), calls));
            return true;
        };
        let time = since.elapsed();
        if time < PATIENCE {
            return true;
        }
        let cost = CALL_COST * u32::try_from(calls.saturating_sub(before)).unwrap_or(u32::MAX);
        if bursts.samples().seen() == 0 || cost * BURST_SHARE > time {
            bursts.stop_telling();
        }
        self.telling = Some((Instant::now(), calls));
        true
    }

    /// When [`Tracer::burst`] has something to do next, if that is within `most`.
    pub fn burst_due(&self, most: Duration) -> Duration {
        match &self.bursts {
            None => most,
            Some(bursts) if bursts.tells() || bursts.is_refused() => most,
            Some(bursts) => {
                let is_on = self.burst_events.is_some();
                let next = if is_on { Instant::now() + ASK_OFF } else { self.next_burst };
                let next = match bursts.of() {
                    Of::Heap => next,
                    Of::Objects => next.min(self.next_glance),
                };
                most.min(next.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// One burst, if it is time: probes on, a few milliseconds, probes off.
    pub fn burst(&mut self) {
        if self.listen() {
            return;
        }
        if Instant::now() >= self.next_glance {
            self.glance();
        }
        let is_off = self.bursts.as_mut().is_some_and(|bursts| bursts.is_off(&mut self.probe));
        if !is_off {
            return;
        }
        if let Some(before) = self.burst_events.take() {
            self.glance();
            // Also those that came while the kernel took the probes off.
            let calls = self.probe.counters().calls().saturating_sub(before);
            let cost = CALL_COST * u32::try_from(calls).unwrap_or(u32::MAX);
            // On a busy machine probes stay on for longer than was wanted, and a call may cost more than
            // is reckoned with: of the time in which any was seen nothing may have been left.
            let span = self.bursts.as_ref().map_or(0, |bursts| bursts.samples().span_ns());
            let cost = cost.max(Duration::from_nanos(span));
            let least = match self.burst_of() {
                Some((_, Of::Heap)) if self.kept_plenty() => least(Of::Heap) * RARER,
                Some((_, of)) => least(of),
                None => Duration::ZERO,
            };
            self.next_burst = Instant::now() + (cost * BURST_SHARE).max(least);
        }
        if Instant::now() < self.next_burst {
            return;
        }
        // What the last burst saw is its own, not the next one's.
        self.pump(Duration::ZERO);
        self.burst_events = Some(self.probe.counters().calls());
        let Some(bursts) = &mut self.bursts else { return };
        match bursts.on(&mut self.probe) {
            Ok(()) if bursts.of() == Of::Heap => std::thread::sleep(BURST),
            Ok(()) => self.mark_meanwhile(),
            Err(why) => self.burst_failure = Some(why.to_string()),
        }
        self.last_burst = Instant::now();
        let Some(bursts) = &mut self.bursts else { return };
        bursts.off();
        if bursts.of() == Of::Objects {
            self.mark_the_last();
        }
        self.pump(Duration::ZERO);
        self.glance();
    }

    fn kept_plenty(&self) -> bool {
        self.fates.iter().map(|(_, kept)| kept.count).sum::<u64>() >= PLENTY_KEPT
    }

    /// The kernel takes its time to take the probes off: what they see meanwhile counts, too.
    fn mark_the_last(&mut self) {
        let begun = Instant::now();
        let mut quiet = 0;
        while quiet < QUIET && begun.elapsed() < LEAVING {
            let before = self.burst_samples();
            self.mark_soon(Some(BURST / 2));
            quiet = if self.burst_samples() == before { quiet + 1 } else { 0 };
        }
    }

    /// Marks objects as they come, while their burst lasts.
    fn mark_meanwhile(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < BURST {
            self.mark_soon(None);
        }
    }

    fn mark_soon(&mut self, age: Option<Duration>) {
        std::thread::sleep(BURST / MARKINGS);
        self.pump(Duration::ZERO);
        if let Some(bursts) = &mut self.bursts {
            bursts.mark(age);
        }
    }

    /// Soon after a burst of objects, and often, it shows which live for moments only.
    fn glance(&mut self) {
        let Some(bursts) = self.bursts.as_mut().filter(|b| b.of() == Of::Objects) else { return };
        let begun = Instant::now();
        bursts.look_at_last();
        let age = begun.saturating_duration_since(self.last_burst) / GLANCE_PART;
        self.next_glance = begun + (begun.elapsed() * GLANCE_SHARE).max(GLANCE_LEAST).max(age);
    }

    /// Takes the last burst's probes off, for good.
    pub fn end_bursts(&mut self) {
        if let Some(bursts) = &mut self.bursts {
            bursts.wait_off(&mut self.probe);
        }
    }

    /// Whether malloc is probed, and how many allocations were seen.
    pub fn burst_samples(&self) -> Option<usize> {
        self.bursts.as_ref().map(|b| b.samples().seen())
    }

    /// Why nothing could be probed, though the functions were found.
    pub fn burst_failure(&self) -> Option<String> {
        self.burst_failure.clone().filter(|_| self.burst_samples() == Some(0))
    }

    /// Whether the target made probed text writable, so that probing ended.
    pub fn burst_refused(&self) -> bool {
        self.bursts.as_ref().is_some_and(Bursts::is_refused)
    }

    /// By stack, what of the allocations seen before a time is still in use; `None` where nothing
    /// was probed. Of two ages the higher is taken if enough of it stayed: what is freed late, and
    /// given to another, shows only then. Of a process that has ended, what was so when it was asked
    /// last.
    pub fn kept(
        &mut self,
        until_ns: u64,
        enough: u64,
        grows: Grows<'_>,
    ) -> Option<Vec<(StackId, Kept)>> {
        let bursts = self.bursts.as_mut()?;
        if !self.fates.is_empty() && !bursts.can_ask() {
            return Some(self.fates.clone());
        }
        bursts.look();
        let old = bursts.kept(bursts.samples().halfway(until_ns), grows);
        let plenty = old.iter().map(|(_, k)| k.count).sum::<u64>() >= enough;
        Some(if plenty { old } else { bursts.kept(until_ns, grows) })
    }

    /// Keeps what [`Tracer::kept`] says now, should the process end before it is asked again.
    pub fn keep_fates(&mut self, until_ns: u64, enough: u64) {
        if self.bursts.as_ref().is_some_and(Bursts::can_ask)
            && let Some(kept) = self.kept(until_ns, enough, &|_| true)
        {
            self.fates = kept;
        }
    }
}
