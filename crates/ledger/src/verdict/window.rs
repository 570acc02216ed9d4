//! What one window of a series shows: its floor over time, its falls, its rate early and late.

use super::slope::{median, theil_sen};
use crate::series::{Point, span};

/// The window is cut into this many equal times; the lowest value of each is the floor there.
pub(crate) const BINS: usize = 8;
/// So many of them may hold no look: a watch that was stopped or starved for a while.
const MISSING: usize = 2;

/// Measures of one window. All in bytes and seconds.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub seconds: f64,
    /// The lowest point of each bin that has any.
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
    middle: f64,
    quarter: f64,
}

impl Window {
    /// `None` for too few points for so short a time.
    pub fn new(points: &[Point]) -> Option<Self> {
        let seconds = span(points);
        let floors = floors(points, seconds)?;
        let slope = theil_sen(&floors)?.median;
        let [first, .., end] = floors[..] else { return None };
        let start = points.first()?.time_s;
        let middle = start + seconds / 2.0;
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
            rise: slope * (end.time_s - first.time_s),
            // A line takes two degrees of freedom.
            noise: (squares / (floors.len() - 2) as f64).sqrt(),
            short: level + slope * (last.time_s - middle) - last.bytes,
            floors,
            range,
            jump: points.windows(2).map(|p| p[1].bytes - p[0].bytes).fold(0.0, f64::max),
            drops,
            deepest,
            middle,
            quarter: start + seconds / BINS as f64,
        })
    }

    /// The rate late in the window as a share of the rate early in it. The first bin is left out:
    /// what a program does when it starts is no decay.
    pub fn late_to_early(&self) -> f64 {
        let from = |time: f64| self.floors.iter().find(|f| f.time_s >= time);
        let (Some(first), Some(middle)) = (from(self.quarter), from(self.middle)) else {
            return 0.0;
        };
        let last = self.floors[self.floors.len() - 1];
        let early = (middle.bytes - first.bytes) / (middle.time_s - first.time_s);
        let late = (last.bytes - middle.bytes) / (last.time_s - middle.time_s);
        if early > 0.0 { late / early } else { f64::INFINITY }
    }

    /// The most by which the floor rose from one bin to the next. What lies above the floor of the last looks
    /// may fall yet: it is no step.
    pub fn largest_step(&self) -> f64 {
        self.floors.windows(2).map(|f| f[1].bytes - f[0].bytes).fold(0.0, f64::max)
    }

    /// How often the floor did not rise from one bin to the next; a bin without a look is no rise.
    pub fn standing_bins(&self) -> usize {
        let rises = self.floors.windows(2).filter(|f| f[1].bytes > f[0].bytes).count();
        BINS - 1 - rises
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
    let floors: Vec<Point> = lowest.into_iter().flatten().collect();
    (floors.len() >= BINS - MISSING).then_some(floors)
}

/// The deepest fall from any earlier value.
pub(crate) fn deepest(points: &[Point]) -> f64 {
    drops(points, 0.0).1
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
