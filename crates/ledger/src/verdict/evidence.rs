//! What it takes to call growth a leak.

use super::climb::{Climb, falls};
use super::shape::{CLEAR, SLOWING, SMALLEST};
use super::slope::{median, theil_sen};
use super::window::{Window, deepest};
use super::{Nature, SHORTEST, When};
use crate::series::{Point, Series};

/// A leak is at least this much within its window.
const LEAST_RISE: f64 = 5.0 * SMALLEST;
/// Each window that is tried is longer than the one before by this factor.
const LONGER: f64 = 1.5;
/// Growth has stopped where the last value is this share of the rise below the line.
const SHORT_OF_LINE: f64 = 0.08;
/// What remains after a fall is known when this many lie in the window: autocorrelated noise rises
/// between a few by chance.
const ENOUGH_FALLS: usize = 6;
/// Growth that goes on has no pause longer than this share of its window.
const LONGEST_PAUSE: f64 = 0.34;
/// What fell back after growing for some time is believed when it has grown so many times longer.
const AGAIN: f64 = 1.5;
/// Growth in steps is no leak before there were so many, as the share of the largest.
const LARGEST_STEP: f64 = 0.22;
/// Of steps larger than this share, how many lie in a time is chance: their tempo tells, which must
/// not have slowed down to so little.
const COUNTED_STEP: f64 = 0.05;
/// So many deviations are chance.
const CHANCES: f64 = 1.6;
const STEADY_TEMPO: [f64; 2] = [0.85, 0.65];
/// Looks that are further apart, in seconds, tell no steps.
const RARE: f64 = 4.0;
/// So many looks, each within this share of the rise of a line, saw even growth.
const MANY_LOOKS: usize = 9;
const OFF_LINE: f64 = 0.02;
/// So many windows back, what a program did says little of what it does.
const FAR: f64 = 4.0;

/// What early and late are: the parts of a window that are compared.
const PART: f64 = 0.4375;
/// While there is time to see more, growth that slows down this little may be a warm-up.
const SLOWING_EARLY: f64 = 0.85;
/// How long that is worth waiting for, in seconds.
const EARLY: f64 = 90.0;

/// The longest window that leaks, in seconds: its rate is the surest.
pub(crate) fn leaking_window(series: &Series, nature: Nature, when: When) -> Option<f64> {
    let span = series.span();
    let (mut seconds, mut longest) = (super::patience(nature, when), None);
    while seconds <= span {
        if leaks(series, seconds, when) {
            longest = Some(seconds);
        }
        // The whole span is the last try, so that no evidence lies unused.
        seconds = if seconds < span { (seconds * LONGER).min(span) } else { f64::INFINITY };
    }
    longest
}

fn leaks(series: &Series, seconds: f64, when: When) -> bool {
    let points = series.last(seconds);
    let Some(window) = Window::new(points) else { return false };
    let Some(climb) = Climb::new(points) else { return false };
    if window.rise < LEAST_RISE || climb.kept < LEAST_RISE {
        return false;
    }
    let slowing = match when {
        When::Watching if seconds < EARLY => SLOWING_EARLY,
        _ => SLOWING,
    };
    // A walk without drift rises to twelve times its deepest fall once in e^12 tries: whatever the
    // noise, such a climb is none of its making, and need not be straight.
    let rises = match climb.kept > CLEAR * window.deepest {
        true if climbs(&climb, slowing, when) && !slows(series, &climb, when) => true,
        // Between looks that come rarely no step is seen: what lies on a line all the same is even.
        true => {
            let rare = points.len() as f64 * RARE < seconds;
            (rare && rises_under_noise(&window)) || lies_on_a_line(points, &climb)
        }
        // Chance passes quickly.
        false => rises_under_noise(&window) && rose_before(points),
    };
    rises && !decayed(series, seconds, when) && !may_fall(series, &window)
}

fn climbs(climb: &Climb, slowing: f64, when: When) -> bool {
    let step = climb.step / climb.kept;
    step <= LARGEST_STEP
        && climb.pause <= LONGEST_PAUSE * climb.seconds
        && climb.late_to_early >= slowest(slowing, step).min(by_chance(climb, when))
        && (step < COUNTED_STEP || is_steady(climb, when))
        && climb.since <= 1.5 * climb.gap + 1.0
}

/// Looks that come at odd times see odd steps; where each of many saw what an even rate had come to by then,
/// it is even.
fn lies_on_a_line(points: &[Point], climb: &Climb) -> bool {
    let Some(slope) = theil_sen(points).filter(|_| points.len() >= MANY_LOOKS) else {
        return false;
    };
    let off: Vec<f64> = points.iter().map(|p| p.bytes - slope.median * p.time_s).collect();
    let level = median(&off);
    off.iter().all(|off| (off - level).abs() <= OFF_LINE * climb.kept)
}

/// Whether the window rose likewise without its last eighth.
fn rose_before(points: &[Point]) -> bool {
    let seconds = crate::series::span(points);
    let until = points.last().map_or(0.0, |p| p.time_s) - seconds / 8.0;
    let before = &points[..points.partition_point(|p| p.time_s <= until)];
    match (Window::new(before), Climb::new(before)) {
        (Some(window), Some(climb)) => {
            climb.kept > CLEAR * window.deepest || rises_under_noise(&window)
        }
        _ => false,
    }
}

/// How slow, compared with its early part, the late part of growth may be: of few equal steps one part
/// may hold one more than the other. `step`: the largest as a share of all.
fn slowest(slowing: f64, step: f64) -> f64 {
    let each = (PART / step).floor();
    if each.is_finite() { slowing.min(each / (each + 1.0) - 0.01) } else { slowing }
}

fn rises_under_noise(window: &Window) -> bool {
    // Under noise or a sawtooth the floor must have risen by a fair part of all that moved, and a few
    // big steps must be outlived by a longer window.
    window.rise > CLEAR * window.noise
        && window.late_to_early() >= SLOWING
        && window.short < SHORT_OF_LINE * window.rise
        && window.standing_bins() <= 1
        && window.rise >= window.range / 3.0
        && window.largest_step() <= window.rise / 3.0
}

/// Whether a longer time shows growth that slows down: late in a logarithm, each minute is a line.
fn decayed(series: &Series, seconds: f64, when: When) -> bool {
    let span = series.span();
    let longer = std::iter::successors(Some(LONGER * seconds), |s| Some(LONGER * s));
    let whole = std::iter::once(span).filter(|s| *s > 1.1 * seconds);
    longer.take_while(|s| *s < span).chain(whole).any(|seconds| {
        let points = series.last(seconds);
        let random = Climb::new(points).map_or(1.0, |climb| by_chance(&climb, when));
        Window::new(points).is_some_and(|window| {
            let slowest = slowest(SLOWING, window.jump / window.rise);
            window.standing_bins() <= 2 && window.late_to_early() < slowest.min(random)
        })
    })
}

fn is_steady(climb: &Climb, when: When) -> bool {
    let [tempo, least] = climb.tempo;
    let random = when == When::Ending && climb.chance > 0.0 && tempo >= by_chance(climb, when);
    random || (tempo >= STEADY_TEMPO[0] && least >= STEADY_TEMPO[1])
}

/// How slow, compared with its early part, the late part of growth in random steps may be by chance. While
/// there is time to see more of them, more are waited for.
fn by_chance(climb: &Climb, when: When) -> f64 {
    let off = if when == When::Ending { CHANCES * climb.chance } else { 0.0 };
    if off > 0.0 { ((1.0 - off) / (1.0 + off)).max(0.0) } else { 1.0 }
}

/// Whether the time before shows that a few steps come ever later: within the window, looks a second
/// apart hide it.
fn slows(series: &Series, climb: &Climb, when: When) -> bool {
    climb.step >= COUNTED_STEP * climb.kept
        && Climb::new(series.last(FAR * climb.seconds)).is_some_and(|c| !is_steady(&c, when))
}

/// Whether a fall as deep as half of this rise may come again: too few lie in the window to know
/// what remains after one, or it fell before after growing for as long.
fn may_fall(series: &Series, window: &Window) -> bool {
    let falls = falls(series.points(), window.rise / 2.0);
    let Some(last) = falls.last() else { return false };
    let now = series.points().last().map_or(0.0, |p| p.time_s);
    match falls.iter().filter(|fall| fall.at >= now - window.seconds).count() {
        0 => {
            let longest = falls.iter().map(|fall| fall.grew).fold(0.0, f64::max);
            now - last.at < AGAIN * longest
        }
        few => few < ENOUGH_FALLS,
    }
}

/// How long nothing must have grown for growth to be over.
pub(crate) fn quiet_time(span: f64) -> f64 {
    (span / 3.0).clamp(SHORTEST / 3.0, 60.0)
}

/// Whether the last third (at most a minute of it) did not grow, nor did it pause for as long before.
pub(crate) fn growth_is_over(series: &Series) -> bool {
    let pauses =
        |c: Climb| c.since < AGAIN * c.gap && c.kept > SMALLEST.max(deepest(series.points()));
    if Climb::new(series.points()).is_some_and(pauses) {
        return false;
    }
    let recent = series.last(quiet_time(series.span()));
    let Some(last) = recent.last().filter(|_| recent.len() >= 4) else { return false };
    let small = (SMALLEST / 4.0).max(last.bytes / 400.0);
    // What churns is now a little more, now a little less: halves are compared, not single looks.
    let (early, late) = recent.split_at(recent.len() / 2);
    let middle = |of: &[Point]| median(&of.iter().map(|p| p.bytes).collect::<Vec<_>>());
    let lowest_late = late.iter().map(|p| p.bytes).fold(f64::MAX, f64::min);
    let highest_early = early.iter().map(|p| p.bytes).fold(f64::MIN, f64::max);
    middle(late) - middle(early) < small
        && lowest_late - highest_early < small
        && last.bytes - highest_early < small
}
