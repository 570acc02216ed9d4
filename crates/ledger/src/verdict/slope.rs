//! A slope that outliers do not move, with its interval.
//!
//! Theil (1950) and Sen (1968): the median of the slopes of all pairs; its 95 % interval from the
//! variance of Kendall's S (Sen 1968, equation 2.6).

use crate::series::Point;

/// Pairs grow with the square of the points: more than this many are thinned evenly.
const MOST_POINTS: usize = 160;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// `None` for fewer than three points.
pub(crate) fn theil_sen(points: &[Point]) -> Option<Slope> {
    let step = points.len().div_ceil(MOST_POINTS).max(1);
    let points: Vec<Point> = points.iter().copied().step_by(step).collect();
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
    let half = 1.96 * deviation / 2.0;
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
