//! How a series climbed: what it kept of each gain, how long it stood still, after how long it fell.

use super::window::deepest;
use crate::series::Point;

/// What of a window's growth was kept to its end, step by step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Climb {
    /// How long it was looked at.
    pub seconds: f64,
    /// Growth that was never given back.
    pub kept: f64,
    /// The largest step of it, over what even growth gains between looks that are far apart.
    pub step: f64,
    /// The longest time, before the last step, in which less than a twentieth of it was gained.
    pub pause: f64,
    /// The same between two steps: not counting the time before the first.
    pub gap: f64,
    /// The time since the last step.
    pub since: f64,
    /// By how much of it all, by chance, more may have been kept early than late: of steps whose sizes and
    /// times are random. 0 of regular ones.
    pub chance: f64,
    /// What was kept late as a share of what was kept early, start aside.
    pub late_to_early: f64,
    /// The rate from step to step, late as a share of early, start aside. Of a few steps this is surer
    /// than how many of them lie in a time. Beside it the least that it may have been.
    pub tempo: [f64; 2],
}

/// Looks so many seconds apart are as a watch makes them that nothing keeps from looking.
const ORDINARY: f64 = 4.0;
/// Steps smaller than this share of the largest are not counted when it is asked whether they are random;
/// fewer do not tell, nor are those random that vary less (exponential times and sizes have 2).
const LEAST_STEP: f64 = 0.05;
const FEW: usize = 12;
const RANDOM: f64 = 1.25;
/// Between them it stands: it gains less from look to look than this share of the mean.
const STANDS: f64 = 0.1;
/// They are larger than what falls back this many times.
const OVER_NOISE: f64 = 3.0;
/// Steps smaller than this share of the whole are no steps.
const SHARE: f64 = 0.05;

impl Climb {
    /// `None` where nothing was kept.
    pub fn new(points: &[Point]) -> Option<Self> {
        // What lies below every later value was kept.
        let mut floor = points.to_vec();
        for i in (1..floor.len()).rev() {
            floor[i - 1].bytes = floor[i - 1].bytes.min(floor[i].bytes);
        }
        let (first, last) = (*floor.first()?, *floor.last()?);
        let kept = last.bytes - first.bytes;
        if kept <= 0.0 {
            return None;
        }
        let seconds = last.time_s - first.time_s;
        let (mut pause, mut gap, mut at) = (0.0_f64, 0.0_f64, first);
        let mut steps = Vec::new();
        for point in &floor {
            if point.bytes - at.bytes >= SHARE * kept {
                let stood = point.time_s - at.time_s;
                gap = gap.max(if at.time_s > first.time_s { stood } else { 0.0 });
                pause = pause.max(stood);
                at = *point;
                if point.time_s >= first.time_s + seconds / 8.0 {
                    steps.push(at);
                }
            }
        }
        let level = |part: f64| {
            let until = first.time_s + part * seconds;
            floor[floor.partition_point(|p| p.time_s <= until).max(1) - 1].bytes
        };
        let (early, late) = (level(0.5625) - level(0.125), last.bytes - level(0.5625));
        Some(Self {
            seconds,
            kept,
            step: floor.windows(2).map(|p| step(p, kept / seconds)).fold(0.0, f64::max),
            pause,
            gap,
            since: last.time_s - at.time_s,
            chance: chance(&floor, deepest(points)),
            late_to_early: if early > 0.0 { late / early } else { f64::INFINITY },
            tempo: tempo(&steps, last.time_s, seconds / floor.len() as f64),
        })
    }
}

/// The deviation of what random steps add up to, as a share of it: of `n` steps each part of their times
/// and of their sizes that is chance makes one n-th. What comes regularly is none of it, nor what fills
/// up: there at most the times vary.
fn chance(floor: &[Point], fell: f64) -> f64 {
    // What is gained while nobody looks is no step.
    let looks = || floor.windows(2).filter(|p| p[1].time_s - p[0].time_s <= ORDINARY);
    let gains = || looks().map(|p| (p[1].time_s, p[1].bytes - p[0].bytes));
    let least = LEAST_STEP * gains().map(|(_, gain)| gain).fold(0.0, f64::max);
    let steps: Vec<(f64, f64)> = gains().filter(|(_, gain)| *gain > least).collect();
    let apart: Vec<f64> = steps.windows(2).map(|s| s[1].0 - s[0].0).collect();
    let sizes: Vec<f64> = steps.iter().map(|(_, gain)| *gain).collect();
    let random = variation(&sizes) + variation(&apart);
    // Under noise the floor of a curve rises in random steps, too, and in looks that come at random times.
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let gained: f64 = sizes.iter().sum();
    let stood = gains().filter(|(_, gain)| *gain < STANDS * gained / floor.len() as f64).count();
    let noise = mean < OVER_NOISE * fell || stood < floor.len() / 3;
    if steps.len() < FEW || random < RANDOM || noise {
        0.0
    } else {
        (random / steps.len() as f64).sqrt()
    }
}

/// The square of the coefficient of variation, from each to the next: what changes slowly does not vary.
fn variation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.windows(2).map(|v| (v[1] - v[0]).powi(2)).sum::<f64>();
    squares / (2.0 * (values.len() as f64 - 1.0)) / mean.powi(2)
}

/// What was gained between two looks. Of looks that come rarely each sees much: an even rate's share of
/// a long time is no step.
fn step(looks: &[Point], even: f64) -> f64 {
    let beyond = looks[1].time_s - looks[0].time_s - ORDINARY;
    looks[1].bytes - looks[0].bytes - even * beyond.max(0.0)
}

/// The rate over the second half of steps as a share of that over the first, and the least that it may
/// have been, since a step came at any time since the look before; 0 of fewer than five, of which
/// nothing is known. A step that is late by now counts as one that comes now.
fn tempo(steps: &[Point], now: f64, look: f64) -> [f64; 2] {
    let [first, _, _, _, .., last] = steps else { return [0.0; 2] };
    let middle = (steps.len() - 1) / 2;
    let (gaps, middle) = (middle as f64, steps[middle]);
    let early = middle.time_s - first.time_s;
    let late = last.time_s.max(now - early / gaps) - middle.time_s;
    let gained = (last.bytes - middle.bytes) / (middle.bytes - first.bytes);
    [gained * early / late, gained * (early - look) / (late + look)]
}

/// A fall that gave back growth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fall {
    /// When it was at its lowest.
    pub at: f64,
    /// For how long that had grown which it gave back.
    pub grew: f64,
}

/// Every fall by more than `deep` from what was highest since the one before.
pub(crate) fn falls(points: &[Point], deep: f64) -> Vec<Fall> {
    let mut falls = Vec::<Fall>::new();
    // The highest since the last fall; while it falls on, the top of the fall and when it was last as
    // low as now before that.
    let (mut peak, mut falling) = (0, None::<(usize, usize)>);
    for (index, point) in points.iter().enumerate() {
        if let (Some((top, from)), Some(fall)) = (&mut falling, falls.last_mut()) {
            if point.bytes <= points[peak].bytes {
                // `peak` is the lowest while it falls.
                (peak, fall.at) = (index, point.time_s);
                while *from > 0 && points[*from - 1].bytes > point.bytes {
                    *from -= 1;
                }
                fall.grew = points[*top].time_s - points[*from].time_s;
            } else if point.bytes - points[peak].bytes > deep {
                // It has begun to grow again.
                (peak, falling) = (index, None);
            }
        } else if point.bytes >= points[peak].bytes {
            peak = index;
        } else if points[peak].bytes - point.bytes > deep {
            let mut from = peak;
            while from > 0 && points[from - 1].bytes > point.bytes {
                from -= 1;
            }
            let grew = points[peak].time_s - points[from].time_s;
            falls.push(Fall { at: point.time_s, grew });
            falling = Some((peak, from));
            peak = index;
        }
    }
    falls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        let point = |(at, &bytes): (usize, &f64)| Point { time_s: at as f64, bytes };
        values.iter().enumerate().map(point).collect()
    }

    #[test]
    fn what_was_kept_and_how_long_it_stood() {
        let climb =
            Climb::new(&points(&[0.0, 9.0, 0.0, 4.0, 4.0, 4.0, 8.0, 8.0])).expect("a climb");
        assert_eq!((climb.kept, climb.step, climb.gap, climb.since), (8.0, 4.0, 3.0, 1.0));
        assert!(Climb::new(&points(&[3.0, 2.0, 3.0, 2.0])).is_none());
    }

    #[test]
    fn even_growth_has_no_steps_however_rarely_it_is_looked_at() {
        let look = |time: f64| Point { time_s: time, bytes: 5.0 * time };
        let rare: Vec<Point> = [0.0, 9.0, 21.0, 30.0, 44.0, 52.0, 60.0].map(look).to_vec();
        let climb = Climb::new(&rare).expect("a climb");
        assert!(climb.step < 0.07 * climb.kept, "{climb:?}");
        let often: Vec<Point> = (0..60).map(|t| look(f64::from(t / 10 * 10))).collect();
        let often = often.iter().zip(0..).map(|(p, t)| Point { time_s: f64::from(t), ..*p });
        let climb = Climb::new(&often.collect::<Vec<_>>()).expect("a climb");
        assert!(climb.step > 0.15 * climb.kept, "{climb:?}");
    }

    #[test]
    fn steps_that_come_ever_later_are_slow_however_few() {
        let at = |times: &[f64]| {
            let mut points = vec![Point { time_s: 0.0, bytes: 0.0 }];
            points.extend(
                times.iter().zip(1..).map(|(&t, i)| Point { time_s: t, bytes: f64::from(i) }),
            );
            points.push(Point { time_s: 27.0, bytes: times.len() as f64 });
            Climb::new(&points).expect("a climb")
        };
        let slow = at(&[2.4, 4.7, 7.75, 11.75, 16.8, 23.0]);
        assert!(slow.tempo[0] < 0.7, "{slow:?}");
        let even = at(&[2.0, 6.0, 10.0, 14.0, 18.0, 22.0, 26.0]);
        assert!((even.tempo[0] - 1.0).abs() < 1e-9, "{even:?}");
    }

    #[test]
    fn a_fall_gives_back_all_the_growth_down_to_its_lowest() {
        let fell = falls(&points(&[0.0, 2.0, 4.0, 6.0, 8.0, 5.0, 6.0, 3.0, 1.0, 2.0, 9.0]), 2.5);
        assert_eq!(fell.len(), 1, "{fell:?}");
        assert_eq!((fell[0].at, fell[0].grew), (8.0, 3.0));
        assert!(falls(&points(&[5.0, 4.0, 5.0, 4.0]), 2.0).is_empty());
    }
}
