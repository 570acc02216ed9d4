//! A slope that outliers do not move, with its interval.
//!
//! Theil (1950) and Sen (1968): the median of the slopes of all pairs; its 95 % interval from the
//! variance of Kendall's S (Sen 1968, equation 2.6). That variance is of independent looks; memory is
//! not forgetful, so a rate's interval is widened as far as neighbouring residuals are alike.

use crate::series::Point;

/// Pairs grow with the square of the points: of more than this many, the medians of neighbours speak.
const MOST_POINTS: usize = 72;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// A look's moment is known to milliseconds and bytes are counted in pages: no rate is surer.
const SUREST: f64 = 0.005;

/// The rate of what was looked at, with an interval that holds for looks that are alike.
pub(crate) fn rate(points: &[Point]) -> Option<Slope> {
    let points = thinned(points);
    let slope = slope_of(&points, 1.0)?;
    let off: Vec<f64> = points.iter().map(|p| p.bytes - slope.median * p.time_s).collect();
    let level = median(&off);
    let product = |a: f64, b: f64| (a - level) * (b - level);
    let all: f64 = off.iter().map(|&o| product(o, o)).sum();
    let neighbours: f64 = off.windows(2).map(|o| product(o[0], o[1])).sum();
    let alike = if all > 0.0 { (neighbours / all).clamp(0.0, MOST_ALIKE) } else { 0.0 };
    let mut slope = slope_of(&points, ((1.0 + alike) / (1.0 - alike)).sqrt())?;
    let least = SUREST * slope.median.abs();
    slope.low = slope.low.min(slope.median - least);
    slope.high = slope.high.max(slope.median + least);
    Some(slope)
}

/// More alike than this cannot be told from a trend.
const MOST_ALIKE: f64 = 0.97;

/// `None` for fewer than three points.
pub(crate) fn theil_sen(points: &[Point]) -> Option<Slope> {
    slope_of(&thinned(points), 1.0)
}

fn thinned(points: &[Point]) -> Vec<Point> {
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    let middle = |near: &[Point]| {
        let by = |value: fn(&Point) -> f64| median(&near.iter().map(value).collect::<Vec<_>>());
        Point { time_s: by(|p| p.time_s), bytes: by(|p| p.bytes) }
    };
    match together {
        1 => points.to_vec(),
        _ => points.chunks(together).map(middle).collect(),
    }
}

/// `wider`: how many times the deviation of independent looks.
fn slope_of(points: &[Point], wider: f64) -> Option<Slope> {
    let n = points.len();
    if n < 3 {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    for (i, a) in points.iter().enumerate() {
        for b in &points[i + 1..] {
            slopes.push((b.bytes - a.bytes) / (b.time_s - a.time_s));
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let n = n as f64;
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let half = wider * 1.96 * deviation / 2.0;
    let middle = (slopes.len() - 1) as f64 / 2.0;
    let at = |rank: f64| slopes[rank.clamp(0.0, (slopes.len() - 1) as f64) as usize];
    Some(Slope {
        median: f64::midpoint(at(middle.floor()), at(middle.ceil())),
        low: at((middle - half).floor()),
        high: at((middle + half).ceil()),
    })
}

/// The median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::{median, theil_sen};
    use crate::series::Point;

    fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        (0u32..).zip(values).map(|(t, bytes)| Point { time_s: t.into(), bytes }).collect()
    }

    #[test]
    fn a_line_has_its_slope_and_no_width() {
        let slope = theil_sen(&points((0..50).map(|i| f64::from(i) * 3.0))).expect("enough");
        assert_eq!((slope.low, slope.median, slope.high), (3.0, 3.0, 3.0));
    }

    #[test]
    fn outliers_do_not_move_it() {
        let values = (0..50).map(|i| f64::from(i) * 3.0 + if i % 9 == 0 { 1e6 } else { 0.0 });
        let slope = theil_sen(&points(values)).expect("enough");
        assert!((slope.median - 3.0).abs() < 1e-9, "{slope:?}");
        assert!(slope.low <= 3.0 && 3.0 <= slope.high);
    }

    #[test]
    fn two_points_have_none() {
        assert!(theil_sen(&points([1.0, 2.0])).is_none());
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
