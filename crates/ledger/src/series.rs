//! The bytes of one layer over time, in bounded memory.

use serde::{Deserialize, Serialize};

/// One look at a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the watch began.
    pub time_s: f64,
    /// Resident bytes.
    pub bytes: f64,
}

/// A series never holds more points; an hour at one a second fits with a quarter thinned.
const MOST_POINTS: usize = 2048;

/// A look stands alone between two that are at most so many seconds apart.
const GLITCH: f64 = 6.0;
/// It is off by more than so many usual steps from look to look, and few are, as a share of all.
const FAR_OFF: f64 = 4.0;
const FEW_GLITCHES: f64 = 0.125;

/// Points in order of time. When it is full, every other one of the older half goes: what is
/// recent stays exact, and no thinning prefers low or high values, which would look like a trend.
#[derive(Debug, Clone, Default)]
pub struct Series {
    points: Vec<Point>,
}

impl Series {
    /// Adds a look. One that is not later than the last, or no number, is left out.
    pub fn push(&mut self, point: Point) {
        let later = self.points.last().is_none_or(|last| point.time_s > last.time_s);
        if !later || !point.time_s.is_finite() || !point.bytes.is_finite() {
            return;
        }
        if self.points.len() == MOST_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index > MOST_POINTS / 2 || index % 2 == 1
            });
        }
        self.points.push(point);
    }

    /// All points, oldest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The points of the last `seconds`.
    pub fn last(&self, seconds: f64) -> &[Point] {
        let Some(end) = self.points.last() else { return &[] };
        let from = self.points.partition_point(|p| p.time_s < end.time_s - seconds);
        &self.points[from..]
    }

    /// The series without single looks that stand far off both neighbours: one that caught an owner between
    /// two states (an allocator that just moved its table) stands alone, and no floor may rest on it. Far
    /// is measured by what lies between looks as a rule: what wanders or falls as far all the time is no
    /// glitch, and smoothed it would look like growth that never falls. Nor is what comes again and again.
    pub fn without_glitches(&self) -> Self {
        let mut steps: Vec<f64> =
            self.points.windows(2).map(|p| (p[1].bytes - p[0].bytes).abs()).collect();
        steps.sort_unstable_by(f64::total_cmp);
        let far = FAR_OFF * steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        let mut points = self.points.clone();
        let mut glitches = 0;
        for (point, near) in points.iter_mut().skip(1).zip(self.points.windows(3)) {
            let [a, b, c] = [near[0].bytes, near[1].bytes, near[2].bytes];
            let middle = a.min(b).max(a.max(b).min(c));
            // Between looks that are far apart anything may have happened.
            if near[2].time_s - near[0].time_s <= GLITCH && (b - middle).abs() > far {
                point.bytes = middle;
                glitches += 1;
            }
        }
        if glitches as f64 > FEW_GLITCHES * self.points.len() as f64 {
            return self.clone();
        }
        Self { points }
    }

    /// Seconds between the first point and the last.
    pub fn span(&self) -> f64 {
        span(&self.points)
    }
}

impl FromIterator<(f64, f64)> for Series {
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(points: I) -> Self {
        let mut series = Self::default();
        for (time_s, bytes) in points {
            series.push(Point { time_s, bytes });
        }
        series
    }
}

/// Seconds between the first point and the last.
pub(crate) fn span(points: &[Point]) -> f64 {
    match points {
        [first, .., last] => last.time_s - first.time_s,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_POINTS, Series};

    #[test]
    fn memory_is_bounded_and_both_ends_are_kept() {
        let series: Series = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        assert!(series.points().len() <= MOST_POINTS);
        assert_eq!(series.points()[0].time_s, 0.0);
        assert_eq!(series.span(), 99_999.0);
        assert_eq!(series.last(100.0).len(), 101, "what is recent is not thinned");
    }

    fn smoothed(values: impl Iterator<Item = f64>) -> Vec<f64> {
        let series: Series = values.enumerate().map(|(t, b)| (t as f64, b)).collect();
        series.without_glitches().points().iter().map(|p| p.bytes).collect()
    }

    #[test]
    fn a_look_that_stands_alone_is_no_floor() {
        let grows = |t: u32| if t == 5 { 0.0 } else { f64::from(10 + t) };
        let seen = smoothed((0..12).map(grows));
        assert_eq!(seen[4..7], [14.0, 14.0, 16.0]);
    }

    #[test]
    fn what_falls_as_far_all_the_time_is_no_glitch() {
        for apart in [2, 3, 5] {
            let teeth = (0..60).map(|t: u32| if t.is_multiple_of(apart) { 1.0 } else { 9.0 });
            assert_eq!(smoothed(teeth.clone()), teeth.collect::<Vec<_>>());
        }
        let walk = [5.0, 4.0, 5.5, 5.0, 1.7, 2.8, 1.7, 2.5, 1.8, 5.1, 3.5, 6.3, 5.1, 2.5];
        assert_eq!(smoothed(walk.into_iter()), walk);
    }

    #[test]
    fn what_is_no_later_or_no_number_is_left_out() {
        let series: Series =
            [(0.0, 1.0), (0.0, 2.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (2.0, 3.0)]
                .into_iter()
                .collect();
        assert_eq!(series.points().len(), 2);
    }
}
