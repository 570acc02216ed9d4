//! Allocations that bursts saw, and what became of them as far as was seen.

use std::collections::HashMap;

use crate::account::StackId;

/// An allocation that a burst saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many bytes were asked for.
    pub bytes: u64,
    /// By whom.
    pub stack: StackId,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// In which burst.
    burst: u32,
}

/// What one stack's sampled allocations became.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Kept {
    /// Sampled bytes that are still in use.
    pub bytes: u64,
    /// Sampled allocations that are still in use.
    pub count: u64,
    /// The part of all sampled ones that is still in use, 0 to 1. Where it is small, what looks kept
    /// is mostly memory that was freed and given to somebody else, unseen.
    pub survival: f64,
    /// When the first of those in use was given, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
}

/// What a look at an allocation's memory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// In use, or nothing speaks against it.
    InUse,
    /// Freed.
    Freed,
    /// A mapping of its own, which is accounted for by its syscalls.
    Mapped,
}

/// Allocations by address.
#[derive(Debug, Default)]
pub struct Samples {
    tracked: HashMap<u64, Sample>,
    /// By stack, those that were replaced, or whose memory was given again.
    dead: HashMap<StackId, Dead>,
    seen: usize,
    burst: u32,
    /// When the first was seen, and the first and last of this burst.
    begun_ns: u64,
    span: Option<(u64, u64)>,
    /// For how long the bursts before this one saw allocations.
    watched_ns: u64,
}

/// Ends that were seen.
#[derive(Debug, Clone, Copy, Default)]
struct Dead {
    /// In the burst that had seen the beginning.
    at_once: u64,
    /// In a later one.
    later: u64,
}

/// A burst in which little was seen was on for so long at least, in nanoseconds.
const LEAST_NS: u64 = crate::burst::BURST.as_nanos() as u64;
/// Samples kept; older ones go first.
const MOST: usize = 200_000;

impl Samples {
    /// How many allocations were seen.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Another burst begins.
    pub fn begin(&mut self) {
        self.watched_ns += self.span.take().map_or(0, |(first, last)| (last - first).max(LEAST_NS));
        self.burst += 1;
    }

    /// The part of the time since the first burst in which probes were on, as what they saw tells: the
    /// kernel takes its time to put them on and off.
    fn watched(&self) -> f64 {
        let (first, last) = self.span.unwrap_or_default();
        let all = last.saturating_sub(self.begun_ns).max(1);
        ((self.watched_ns + (last - first).max(LEAST_NS)) as f64 / all as f64).clamp(1e-4, 1.0)
    }

    /// Memory was given at an address; `old` is what it replaces, 0 for nothing.
    pub fn given(&mut self, address: u64, bytes: u64, old: u64, stack: StackId, time_ns: u64) {
        if old != 0 {
            self.freed(old);
        }
        // Whatever was there before was freed while nobody looked.
        self.freed(address);
        if self.tracked.len() >= MOST {
            self.drop_oldest();
        }
        if self.seen == 0 {
            self.begun_ns = time_ns;
        }
        let (first, last) = self.span.unwrap_or((time_ns, time_ns));
        self.span = Some((first.min(time_ns), last.max(time_ns)));
        self.seen += 1;
        self.tracked.insert(address, Sample { bytes, stack, time_ns, burst: self.burst });
    }

    /// What was at an address is not there any more.
    fn freed(&mut self, address: u64) {
        if let Some(was) = self.tracked.remove(&address) {
            let dead = self.dead.entry(was.stack).or_default();
            if was.burst == self.burst {
                dead.at_once += 1;
            } else {
                dead.later += 1;
            }
        }
    }

    fn drop_oldest(&mut self) {
        let mut times: Vec<u64> = self.tracked.values().map(|s| s.time_ns).collect();
        let (_, middle, _) = times.select_nth_unstable(MOST / 2);
        let middle = *middle;
        self.tracked.retain(|_, s| s.time_ns > middle);
    }

    /// The time before which half of those that still seem in use were given, if it lies between.
    pub fn halfway(&self, until_ns: u64) -> u64 {
        let first = self.tracked.values().map(|s| s.time_ns).min().unwrap_or(until_ns);
        first + until_ns.saturating_sub(first) / 2
    }

    /// By stack, what of the allocations seen before `until_ns` is still in use. For each end that was
    /// seen in a later burst than its beginning, more happened while nobody looked.
    pub fn kept(&self, until_ns: u64, fate: impl Fn(u64, &Sample) -> Fate) -> Vec<(StackId, Kept)> {
        let mut by = HashMap::<StackId, (Kept, u64)>::new();
        for (address, s) in self.tracked.iter().filter(|(_, s)| s.time_ns <= until_ns) {
            let (kept, freed) = by.entry(s.stack).or_default();
            match fate(*address, s) {
                Fate::InUse => {
                    kept.first_ns =
                        if kept.count == 0 { s.time_ns } else { kept.first_ns.min(s.time_ns) };
                    kept.count += 1;
                    kept.bytes += s.bytes;
                }
                Fate::Freed => *freed += 1,
                Fate::Mapped => {}
            }
        }
        let unwatched = 1.0 / self.watched() - 1.0;
        let survival = |stack, kept: &Kept, freed: u64| {
            let dead = self.dead.get(&stack).copied().unwrap_or_default();
            let alive = kept.count as f64 - dead.later as f64 * unwatched;
            let all = kept.count + freed + dead.at_once + dead.later;
            alive.max(0.0) / all.max(1) as f64
        };
        by.into_iter()
            .map(|(stack, (k, freed))| (stack, Kept { survival: survival(stack, &k, freed), ..k }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAK: StackId = 1;
    const CACHE: StackId = 2;

    /// A cache that gives each slot anew, and one object in ten that stays.
    #[test]
    fn what_is_given_again_and_again_is_not_kept() {
        let mut samples = Samples::default();
        for time in 0..2000 {
            samples.given(time % 100 * 64, 64, 0, CACHE, time);
            if time % 10 == 0 {
                samples.given((1 << 20) + time * 64, 64, 0, LEAK, time);
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(1000, |_, _| Fate::InUse).into_iter().collect();
        assert_eq!(kept.get(&CACHE), None);
        assert_eq!(kept[&LEAK], Kept { bytes: 101 * 64, count: 101, survival: 1.0, first_ns: 0 });
    }

    #[test]
    fn what_is_freed_or_replaced_is_not_kept() {
        let mut samples = Samples::default();
        samples.given(64, 10, 0, LEAK, 1);
        samples.given(128, 20, 64, LEAK, 2);
        samples.given(256, 5, 0, LEAK, 3);
        samples.freed(256);
        samples.freed(512);
        let kept = samples.kept(10, |_, _| Fate::InUse);
        assert_eq!(kept, [(LEAK, Kept { bytes: 20, count: 1, survival: 1.0 / 3.0, first_ns: 2 })]);
        assert_eq!(samples.seen(), 3);
    }

    /// A large cache gives each slot anew, rarely in two bursts that saw it, and as many objects stay.
    #[test]
    fn ends_that_nobody_saw_are_reckoned_with() {
        const SLOTS: u64 = 2000;
        let (mut samples, mut random) = (Samples::default(), 1u64);
        for step in 0..100_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // One burst in twenty of the time, each of fifty allocations of both.
            if step % 1000 == 0 {
                samples.begin();
            }
            if step % 1000 < 50 {
                samples.given((random >> 33) % SLOTS * 64, 64, 0, CACHE, step * 1_000_000);
                samples.given((1 << 40) + step * 64, 64, 0, LEAK, step * 1_000_000);
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(u64::MAX, |_, _| Fate::InUse).into_iter().collect();
        assert!(kept[&CACHE].count > 1000, "most look as if they were kept: {kept:?}");
        assert!(kept[&CACHE].survival < 0.01, "{kept:?}");
        assert!(kept[&LEAK].survival > 0.99, "{kept:?}");
    }

    #[test]
    fn samples_are_bounded() {
        let mut samples = Samples::default();
        for n in 0..MOST as u64 * 2 {
            samples.given(n * 16, 8, 0, LEAK, n);
        }
        assert!(samples.tracked.len() <= MOST);
    }
}
