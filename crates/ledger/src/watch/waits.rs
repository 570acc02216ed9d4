//! A process's own time: what it waited for a processor is no time in which it could have grown.
//!
//! On a machine with too much to do a leak grows as fast as its program gets to run: less and less
//! where others begin to work, which looks like a warm-up.

use crate::series::{Point, Series};

/// Seconds over which it is asked whether a process had to wait, and the share of them that tells.
const RECENT: f64 = 120.0;
const STARVED: f64 = 0.2;
/// What sleeps for less than this share of the time is always at work: it is known to the nanosecond
/// how long it ran, but not at what moment of a look.
const AWAKE: f64 = 0.2;
/// However long it waited, its own time does not stand still.
const SLOWEST: f64 = 0.002;

/// How long a process had run, and had waited for a processor, over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    ran: Series,
    waited: Series,
    /// When it was looked at last, how long its first thread had waited then, and its group.
    before: Option<(f64, f64, Option<f64>)>,
}

impl Waits {
    /// Adds a look: how long its first thread ran, how long that waited, and how long a quota on
    /// processor time had kept its group from running, if there is one. A first thread that sleeps
    /// while others work waits for nothing: then the group's time tells.
    pub fn push(&mut self, time_s: f64, [ran, waited]: [f64; 2], throttled: Option<f64>) {
        let mut all = waited;
        if let Some((then, waited_then, throttled_then)) = self.before {
            let gained =
                |now: Option<f64>, then: Option<f64>| now.zip(then).map_or(0.0, |(n, t)| n - t);
            // Several processors are throttled at once, and a wait is counted when it is over.
            let throttled = gained(throttled, throttled_then).min(time_s - then).max(0.0);
            let before = self.waited.points().last().map_or(waited_then, |last| last.bytes);
            all = before + (waited - waited_then).max(throttled);
        }
        self.before = Some((time_s, waited, throttled));
        self.ran.push(Point { time_s, bytes: ran });
        self.waited.push(Point { time_s, bytes: all });
    }

    pub fn points(&self) -> usize {
        self.ran.points().len() + self.waited.points().len()
    }

    pub fn latest(&self) -> [f64; 2] {
        [&self.ran, &self.waited].map(|s| s.points().last().map_or(0.0, |p| p.bytes))
    }

    /// Whether it waited for a fair part of the last minutes.
    pub fn starved(&self) -> bool {
        let points = self.waited.last(RECENT);
        gain(points) > STARVED * crate::series::span(points)
    }

    /// The series over the process's own time, stretched to take as long in all.
    pub fn own_time(&self, series: &Series) -> Series {
        let own = self.own(series.points());
        let span = own.last().map_or(0.0, |last| last - own[0]);
        let stretch = if span > 0.0 { series.span() / span } else { 1.0 };
        let points = series.points().iter().zip(own);
        points.map(|(point, own)| (own * stretch, point.bytes)).collect()
    }

    /// How many seconds ago the last so many seconds of a series' own time began.
    pub fn since(&self, series: &Series, own_s: f64) -> f64 {
        let late = self.own_time(series).last(own_s).len();
        crate::series::span(&series.points()[series.points().len().saturating_sub(late)..])
    }

    /// The own time of each point.
    fn own(&self, points: &[Point]) -> Vec<f64> {
        let slept = self.ran.span() - gain(self.ran.points()) - gain(self.waited.points());
        let awake = slept < AWAKE * self.ran.span();
        let mut latest = f64::MIN;
        let mut before = 0.0;
        let time = points.iter().map(|point| {
            let time = point.time_s;
            let own = if awake { at(&self.ran, time) } else { time - at(&self.waited, time) };
            // A wait is counted when it is over.
            latest = own.max(latest + SLOWEST * (time - before));
            before = time;
            latest
        });
        time.collect()
    }
}

fn gain(points: &[Point]) -> f64 {
    match points {
        [first, .., last] => last.bytes - first.bytes,
        _ => 0.0,
    }
}

/// The value by then, between two looks evenly.
fn at(series: &Series, time_s: f64) -> f64 {
    let points = series.points();
    let next = points.partition_point(|p| p.time_s < time_s);
    match (next.checked_sub(1).and_then(|i| points.get(i)), points.get(next)) {
        (Some(a), Some(b)) => {
            a.bytes + (b.bytes - a.bytes) * (time_s - a.time_s) / (b.time_s - a.time_s)
        }
        (Some(only), None) | (None, Some(only)) => only.bytes,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for four of five seconds from 50 s on, and runs or sleeps for the rest.
    fn waits(runs: bool) -> Waits {
        let mut waits = Waits::default();
        for time in (0..=100).map(f64::from) {
            let waited = (time - 50.0).max(0.0) * 0.8;
            let ran = if runs { time - waited } else { 0.0 };
            waits.push(time, [9.0 + ran, 7.0 + waited], None);
        }
        waits
    }

    #[test]
    fn time_that_was_waited_does_not_count() {
        for waits in [waits(true), waits(false)] {
            assert!(waits.starved());
            let grown = |time: f64| time.min(50.0) + (time - 50.0).max(0.0) * 0.2;
            let series: Series = (0..=100).map(f64::from).map(|t| (t, grown(t))).collect();
            let own = waits.own_time(&series);
            assert!((own.span() - 100.0).abs() < 1e-6);
            let (first, rate) = (own.points()[0], 60.0 / own.span());
            for point in own.points() {
                let line = rate * (point.time_s - first.time_s);
                assert!((point.bytes - line).abs() < 0.1, "{point:?} {line}");
            }
            let since = waits.since(&series, 10.0 / 0.6);
            assert!((since - 50.0).abs() < 2.0, "{since}");
        }
    }

    #[test]
    fn who_never_waits_is_not_starved() {
        let mut waits = Waits::default();
        (0..100).for_each(|t| waits.push(f64::from(t), [0.0, f64::from(t) * 0.1], None));
        assert!(!waits.starved() && !Waits::default().starved());
    }

    #[test]
    fn a_group_that_its_quota_kept_from_running_waited_though_its_first_thread_slept() {
        // Two processors are throttled at once, from 50 s on for four of five seconds.
        let mut waits = Waits::default();
        for time in (0..=100).map(f64::from) {
            let throttled = 2.0 * 0.8 * (time - 50.0).max(0.0);
            waits.push(time, [1.0, 0.1], Some(300.0 + throttled));
        }
        assert!(waits.starved());
        assert!((waits.latest()[1] - 50.1).abs() < 1e-6, "{:?}", waits.latest());
        // What the kernel counts for the first thread too is counted once.
        let mut waits = Waits::default();
        (0..100).map(f64::from).for_each(|t| waits.push(t, [0.0, 0.5 * t], Some(0.5 * t)));
        assert!((waits.latest()[1] - 49.5).abs() < 1e-6, "{:?}", waits.latest());
    }

    #[test]
    fn time_that_goes_back_is_no_fault() {
        let mut waits = Waits::default();
        for time in [3.0, 1.0, f64::NAN, 2.0, 5.0] {
            waits.push(time, [0.0; 2], Some(time));
        }
        assert!(waits.latest()[1].is_finite());
    }
}
