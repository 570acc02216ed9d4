//! Allocations that bursts saw, and what became of them as far as was seen.

mod following;

use std::collections::HashMap;

use crate::account::StackId;
use crate::followed::Class;
use crate::marks::Mark;

/// An allocation that a burst saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// How many bytes were asked for, or how many this one stands for.
    pub bytes: u64,
    /// How many allocations this one stands for.
    pub pieces: f64,
    /// By whom.
    pub stack: StackId,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// What marks an object as the one that was seen, as it was last.
    pub mark: Option<Mark>,
    /// Whether it was known again by what it holds, long after it was seen.
    pub is_sure: bool,
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
    /// How many allocations those stand for.
    pub pieces: f64,
    /// The sum of the squares of their bytes: how much one more or less of them would change.
    pub squares: f64,
    /// The part of all sampled ones that is still in use, 0 to 1. Where it is small, what looks kept
    /// is mostly memory that was freed and given to somebody else, unseen.
    pub survival: f64,
    /// How far the survival may be off, for all that looks could tell: one standard deviation.
    pub survival_error: f64,
    /// When the first of those in use was given, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
}

/// How much was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// In bytes, or as many as it stands for.
    pub bytes: u64,
    /// Its own size in bytes.
    pub size: u64,
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
    /// What this burst saw begin.
    births: Vec<(u64, StackId, u64)>,
    /// Whether what is given back is probed too.
    pub sees_ends: bool,
    /// Objects that were found dead when they were looked at again.
    found: HashMap<(StackId, Class), f64>,
    /// Where the next look at those of older bursts begins.
    turn: usize,
    /// How many of this burst's were thinned.
    thinned: usize,
}

/// Ends that were seen.
#[derive(Debug, Clone, Copy, Default)]
struct Dead {
    /// In the burst that had seen the beginning.
    at_once: u64,
    /// In a later one, as it was given back.
    back: u64,
    /// In a later one, as its memory was given again.
    again: u64,
    /// By a look at the memory, between bursts.
    found: u64,
    /// Of those at once, the ones that had lived for [`MATURE_NS`].
    mature: u64,
    /// For how long all were watched beyond that age in the bursts that saw their beginnings.
    watched_ns: u64,
}

/// A burst in which little was seen was on for so long at least, in nanoseconds.
const LEAST_NS: u64 = crate::burst::BURST.as_nanos() as u64;
/// What lives for so long is not of a moment, in nanoseconds.
const MATURE_NS: u64 = 1_000_000;
/// Samples kept; older ones go first.
const MOST: usize = 200_000;

impl Samples {
    /// How many allocations were seen.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Those of which no end was seen, by address.
    pub fn tracked(&self) -> impl Iterator<Item = (u64, &Sample)> {
        self.tracked.iter().map(|(address, sample)| (*address, sample))
    }

    /// Another burst begins.
    pub fn begin(&mut self) {
        let (first, last) = self.span.take().unwrap_or_default();
        if last > 0 {
            self.watched_ns += (last - first).max(LEAST_NS);
        }
        for (_, stack, time_ns) in self.births.drain(..) {
            let watched = last.saturating_sub(time_ns + MATURE_NS);
            self.dead.entry(stack).or_default().watched_ns += watched;
        }
        self.burst += 1;
        self.thinned = 0;
    }

    /// From the first to the last that this burst saw, in nanoseconds.
    pub fn span_ns(&self) -> u64 {
        self.span.map_or(0, |(first, last)| last - first)
    }

    /// The time between two bursts, in nanoseconds.
    fn gap(&self) -> f64 {
        let all = self.span.map_or(0, |(_, last)| last.saturating_sub(self.begun_ns));
        all as f64 / f64::from(self.burst.max(1)) * (1.0 - self.watched())
    }

    /// The part of the time since the first burst in which probes were on, as what they saw tells: the
    /// kernel takes its time to put them on and off.
    fn watched(&self) -> f64 {
        let (first, last) = self.span.unwrap_or_default();
        let all = last.saturating_sub(self.begun_ns).max(1);
        ((self.watched_ns + (last - first).max(LEAST_NS)) as f64 / all as f64).clamp(1e-4, 1.0)
    }

    /// Memory was given at an address; `old` is what it replaces, 0 for nothing. Where the program samples,
    /// `bytes` are what this one of `size` bytes stands for.
    pub fn given(&mut self, address: u64, given: Given, old: u64, stack: StackId, time_ns: u64) {
        let Given { bytes, size } = given;
        let pieces = bytes as f64 / size.max(1) as f64;
        if old != 0 {
            self.given_back(old);
        }
        // Whatever was there before was freed while nobody looked.
        self.ended(address, false);
        self.becomes(address, bytes);
        if self.tracked.len() >= MOST {
            self.drop_oldest();
        }
        if self.seen == 0 {
            self.begun_ns = time_ns;
        }
        let (first, last) = self.span.unwrap_or((time_ns, time_ns));
        self.span = Some((first.min(time_ns), last.max(time_ns)));
        self.seen += 1;
        self.births.push((address, stack, time_ns));
        self.tracked.insert(
            address,
            Sample { bytes, pieces, stack, time_ns, mark: None, is_sure: false, burst: self.burst },
        );
    }

    /// What was given at an address is given back.
    pub fn given_back(&mut self, address: u64) {
        self.ended(address, true);
    }

    /// What was at an address is not there any more.
    fn ended(&mut self, address: u64, back: bool) {
        if let Some(was) = self.tracked.remove(&address) {
            let dead = self.dead.entry(was.stack).or_default();
            match (was.burst == self.burst, back) {
                (true, _) => {
                    let now = self.span.map_or(0, |(_, last)| last);
                    dead.at_once += 1;
                    dead.mature += u64::from(now.saturating_sub(was.time_ns) > MATURE_NS);
                }
                (false, true) => dead.back += 1,
                (false, false) => dead.again += 1,
            }
            if let Some(mark) = was.mark {
                *self.found.entry((was.stack, mark.class())).or_default() += was.pieces;
            }
        }
    }

    /// Looks which of them are free at this moment. What comes and goes is found free at some look, though
    /// at the end its memory may hold something else that stays.
    pub fn look(&mut self, fate: &mut dyn FnMut(u64, &mut Sample) -> Fate) {
        let dead = &mut self.dead;
        self.tracked.retain(|address, sample| {
            let is_freed = fate(*address, sample) == Fate::Freed;
            if is_freed {
                dead.entry(sample.stack).or_default().found += 1;
            }
            !is_freed
        });
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
    /// seen in a later burst than its beginning, more happened while nobody looked: what is given back
    /// is seen as often as bursts are on, and so is what is given again, which may be much later.
    pub fn kept(
        &self,
        until_ns: u64,
        mut fate: impl FnMut(u64, &Sample) -> Fate,
    ) -> Vec<(StackId, Kept)> {
        let mut by = HashMap::<StackId, (Kept, u64)>::new();
        for (address, s) in self.tracked.iter().filter(|(_, s)| s.time_ns <= until_ns) {
            let (kept, freed) = by.entry(s.stack).or_default();
            let bytes = s.bytes;
            match fate(*address, s) {
                Fate::InUse => {
                    kept.first_ns =
                        if kept.count == 0 { s.time_ns } else { kept.first_ns.min(s.time_ns) };
                    kept.count += 1;
                    kept.pieces += s.pieces;
                    kept.bytes += bytes;
                    kept.squares += (bytes as f64).powi(2);
                }
                Fate::Freed => *freed += 1,
                Fate::Mapped => {}
            }
        }
        let (watched, gap) = (self.watched(), self.gap());
        let survival = |stack, kept: &Kept, freed: u64| {
            let dead = self.dead.get(&stack).copied().unwrap_or_default();
            let later = dead.back + dead.again;
            let ends = if self.sees_ends { dead.back } else { later } as f64 / watched;
            let alive = ((kept.count + later) as f64 - ends).clamp(0.0, kept.count as f64);
            // What dies within milliseconds mostly does so between the burst that saw it and the next.
            let dies = dead.mature as f64 / dead.watched_ns.max(1) as f64;
            let alive = alive * (-dies * gap).exp();
            let dead = freed + dead.at_once + dead.found + later;
            alive / (kept.count + dead).max(1) as f64
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

    fn of(bytes: u64) -> Given {
        Given { bytes, size: bytes }
    }

    /// A cache that gives each slot anew, and one object in ten that stays.
    #[test]
    fn what_is_given_again_and_again_is_not_kept() {
        let mut samples = Samples::default();
        for time in 0..2000 {
            samples.given(time % 100 * 64, of(64), 0, CACHE, time);
            if time % 10 == 0 {
                samples.given((1 << 20) + time * 64, of(64), 0, LEAK, time);
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(1000, |_, _| Fate::InUse).into_iter().collect();
        assert_eq!(kept.get(&CACHE), None);
        assert_eq!(
            kept[&LEAK],
            Kept {
                bytes: 101 * 64,
                count: 101,
                pieces: 101.0,
                squares: 101.0 * 64.0 * 64.0,
                survival: 1.0,
                ..Kept::default()
            }
        );
    }

    #[test]
    fn what_is_freed_or_replaced_is_not_kept() {
        let mut samples = Samples::default();
        samples.given(64, of(10), 0, LEAK, 1);
        samples.given(128, of(20), 64, LEAK, 2);
        samples.given(256, of(5), 0, LEAK, 3);
        samples.given_back(256);
        samples.given_back(512);
        let kept = samples.kept(10, |_, _| Fate::InUse);
        assert_eq!(
            kept,
            [(
                LEAK,
                Kept {
                    bytes: 20,
                    count: 1,
                    pieces: 1.0,
                    squares: 400.0,
                    survival: 1.0 / 3.0,
                    first_ns: 2,
                    ..Kept::default()
                }
            )]
        );
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
                samples.given((random >> 33) % SLOTS * 64, of(64), 0, CACHE, step * 1_000_000);
                samples.given((1 << 40) + step * 64, of(64), 0, LEAK, step * 1_000_000);
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(u64::MAX, |_, _| Fate::InUse).into_iter().collect();
        assert!(kept[&CACHE].count > 1000, "most look as if they were kept: {kept:?}");
        assert!(kept[&CACHE].survival < 0.01, "{kept:?}");
        assert!(kept[&LEAK].survival > 0.99, "{kept:?}");
    }

    /// An allocator that gives no freed memory again: only what is given back tells.
    #[test]
    fn what_is_given_back_tells_of_the_rest() {
        const STEPS: usize = 100_000;
        let (mut samples, mut random) = (Samples { sees_ends: true, ..Samples::default() }, 1u64);
        let mut ends: Vec<Vec<u64>> = vec![Vec::new(); STEPS];
        for step in 0..STEPS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (address, time_ns) = (step as u64 * 64, step as u64 * 1_000_000);
            if step % 1000 == 0 {
                samples.begin();
            }
            // One burst in twenty of the time.
            if step % 1000 < 50 {
                samples.given(address, of(64), 0, CACHE, time_ns);
                samples.given((1 << 40) + address, of(64), 0, LEAK, time_ns);
                ends[step].iter().for_each(|address| samples.given_back(*address));
            }
            let end = step + 500 + (random >> 33) as usize % 4000;
            if let Some(ends) = ends.get_mut(end) {
                ends.push(address);
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(u64::MAX, |_, _| Fate::InUse).into_iter().collect();
        assert!(kept[&CACHE].count > 4000, "most look as if they were kept: {kept:?}");
        assert!(kept[&CACHE].survival < 0.2, "{kept:?}");
        assert!(kept[&LEAK].survival > 0.99, "{kept:?}");
    }

    /// What dies some milliseconds after its beginning does so when no burst sees it, yet some of it dies
    /// within the burst; what dies at once says nothing of what is left.
    #[test]
    fn what_lives_for_milliseconds_is_not_kept() {
        const TICK: u64 = 100_000;
        let mut samples = Samples { sees_ends: true, ..Samples::default() };
        for burst in 0..100u64 {
            samples.begin();
            for step in 0..50u64 {
                let time_ns = burst * 150_000_000 + step * TICK;
                let address = (burst * 1000 + step) * 64;
                samples.given(address, of(64), 0, CACHE, time_ns);
                samples.given((1 << 40) + address, of(64), 0, LEAK, time_ns);
                samples.given((1 << 41) + address, of(64), 0, LEAK, time_ns);
                samples.given_back((1 << 41) + address);
                if step >= 30 {
                    samples.given_back(address - 30 * 64);
                }
            }
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(u64::MAX, |_, _| Fate::InUse).into_iter().collect();
        assert!(kept[&CACHE].count > 2000 && kept[&CACHE].survival < 0.01, "{kept:?}");
        assert!(kept[&LEAK].survival > 0.49, "{kept:?}");
    }

    /// Bursts of objects that end unseen, in memory that then holds what stays.
    #[test]
    fn what_was_free_once_is_not_kept() {
        let mut samples = Samples::default();
        for n in 0..100u64 {
            samples.given(n * 64, of(64), 0, CACHE, n);
            samples.given((1 << 20) + n * 64, of(64), 0, LEAK, n);
        }
        for look in 0..8u64 {
            // Half of the others' memory is in use at any time.
            samples.look(&mut |address, _: &mut Sample| match address {
                a if a < 1 << 20 && (a / 64 + look * 7) % 2 == 0 => Fate::Freed,
                _ => Fate::InUse,
            });
        }
        let kept: HashMap<StackId, Kept> =
            samples.kept(100, |_, _| Fate::InUse).into_iter().collect();
        assert_eq!((kept.get(&CACHE), kept[&LEAK].survival), (None, 1.0));
    }

    /// A program that samples says what each sample stands for.
    #[test]
    fn a_sample_counts_for_what_it_stands_for() {
        let mut samples = Samples { sees_ends: true, ..Samples::default() };
        samples.begin();
        samples.given(64, Given { bytes: 1 << 20, size: 1 << 10 }, 0, LEAK, 1);
        samples.given(4096, Given { bytes: 1 << 20, size: 1 << 10 }, 0, CACHE, 2);
        samples.given_back(4096);
        let kept = samples.kept(10, |_, _| Fate::InUse);
        let [(LEAK, kept)] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!((kept.bytes, kept.count, kept.pieces), (1 << 20, 1, 1024.0));
        assert!(kept.survival > 0.99, "{kept:?}");
    }

    /// What a burst really took is what it saw, not what it was to take.
    #[test]
    fn a_burst_that_was_on_for_long_says_so() {
        let mut samples = Samples::default();
        samples.begin();
        samples.given(64, of(64), 0, LEAK, 1_000);
        samples.given(128, of(64), 0, LEAK, 301_000);
        assert_eq!(samples.span_ns(), 300_000);
        samples.begin();
        assert_eq!(samples.span_ns(), 0);
    }

    #[test]
    fn samples_are_bounded() {
        let mut samples = Samples::default();
        for n in 0..MOST as u64 * 2 {
            samples.given(n * 16, of(8), 0, LEAK, n);
        }
        assert!(samples.tracked.len() <= MOST);
    }
}
