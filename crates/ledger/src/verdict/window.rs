//! What one window of a series shows: its floor over time, its drops, its rate early and late.

use super::slope::{median, theil_sen};
use crate::series::{Point, span};

/// The window is cut into this many equal times; the lowest value of each is the floor there.
pub(crate) const BINS: usize = 8;

/// Measures of one window. All in bytes and seconds.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub seconds: f64,
    /// The lowest point of each bin.
    pub floors: Vec<Point>,
    /// How far the floor rose from the first bin to the last, on a robust line.
    pub rise: f64,
    /// How far the floors lie from that line: their standard deviation about it.
    pub noise: f64,
    /// How far the last value lies below that line.
    pub short: f64,
    /// Highest less lowest value.
    pub range: f64,
    /// The largest gain between two neighbouring points.
    pub jump: f64,
    /// How often the series fell by more than half of its range.
    pub drops: usize,
    /// The deepest fall from any earlier value.
    pub deepest: f64,
}

impl Window {
    /// `None` where a bin would be empty: too few points for so short a time.
    pub fn new(points: &[Point]) -> Option<Self> {
        let seconds = span(points);
        let floors = floors(points, seconds)?;
        let slope = theil_sen(&floors)?.median;
        let middle = floors[BINS / 2].time_s;
        let at_middle: Vec<f64> =
            floors.iter().map(|f| f.bytes - slope * (f.time_s - middle)).collect();
        let level = median(&at_middle);
        let squares: f64 = at_middle.iter().map(|b| (b - level).powi(2)).sum();
        let last = points.last()?;
        let (low, high) = points
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.bytes), high.max(p.bytes)));
        let range = high - low;
        let (drops, deepest) = drops(points, range / 2.0);
        Some(Self {
            seconds,
            rise: slope * (floors[BINS - 1].time_s - floors[0].time_s),
            // A line takes two degrees of freedom.
            noise: (squares / (BINS - 2) as f64).sqrt(),
            short: level + slope * (last.time_s - middle) - last.bytes,
            floors,
            range,
            jump: points.windows(2).map(|p| p[1].bytes - p[0].bytes).fold(0.0, f64::max),
            drops,
            deepest,
        })
    }

    /// The rate late in the window as a share of the rate early in it. The first bin is left out:
    /// what a program does when it starts is no decay.
    pub fn late_to_early(&self) -> f64 {
        let rate = |from: usize, to: usize| {
            let (from, to) = (self.floors[from], self.floors[to]);
            (to.bytes - from.bytes) / (to.time_s - from.time_s)
        };
        let early = rate(1, 4);
        if early <= 0.0 { f64::INFINITY } else { rate(4, BINS - 1) / early }
    }

    /// In how many bins the floor rose.
    pub fn rising_bins(&self) -> usize {
        self.floors.windows(2).filter(|f| f[1].bytes > f[0].bytes).count()
    }
}

fn floors(points: &[Point], seconds: f64) -> Option<Vec<Point>> {
    let start = points.first()?.time_s;
    let width = seconds / BINS as f64;
    let mut lowest = [None::<Point>; BINS];
    for &point in points {
        let bin = (((point.time_s - start) / width) as usize).min(BINS - 1);
        if lowest[bin].is_none_or(|low| point.bytes < low.bytes) {
            lowest[bin] = Some(point);
        }
    }
    lowest.into_iter().collect()
}

/// How often the series fell by more than `deep` from its highest since the last such fall, and
/// the deepest fall of all.
fn drops(points: &[Point], deep: f64) -> (usize, f64) {
    let (mut count, mut deepest, mut high) = (0, 0.0_f64, f64::MIN);
    for point in points {
        high = high.max(point.bytes);
        let fall = high - point.bytes;
        deepest = deepest.max(fall);
        if deep > 0.0 && fall > deep {
            count += 1;
            high = point.bytes;
        }
    }
    (count, deepest)
}
