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

    /// The series with each inner value the median of itself and its neighbours. A look that caught
    /// an owner between two states (an allocator that just moved its table) stands alone, and no
    /// floor may rest on it.
    pub fn without_glitches(&self) -> Self {
        let mut points = self.points.clone();
        for (point, near) in points.iter_mut().skip(1).zip(self.points.windows(3)) {
            let [a, b, c] = [near[0].bytes, near[1].bytes, near[2].bytes];
            // Between looks that are far apart anything may have happened.
            if near[2].time_s - near[0].time_s <= GLITCH {
                point.bytes = a.min(b).max(a.max(b).min(c));
            }
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

    #[test]
    fn a_look_that_stands_alone_is_no_floor() {
        let series: Series = [1.0, 2.0, 3.0, 0.0, 5.0, 9.0]
            .iter()
            .enumerate()
            .map(|(t, &b)| (t as f64, b))
            .collect();
        let bytes: Vec<f64> = series.without_glitches().points().iter().map(|p| p.bytes).collect();
        assert_eq!(bytes, [1.0, 2.0, 2.0, 3.0, 5.0, 9.0]);
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
