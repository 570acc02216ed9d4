//! From a series to its verdict.

use super::shape::{CLEAR, SLOWING, SMALLEST, shape};
use super::slope::theil_sen;
use super::window::{BINS, Window};
use super::{Kind, Nature, Verdict};
use crate::series::{Point, Series};

/// The shortest time through which growth must go on before it is called a leak, in seconds.
const SHORTEST: f64 = 18.0;
/// The window that is reported where nothing leaks.
const REPORTED: f64 = 600.0;
/// A leak is at least this much within its window.
const LEAST_RISE: f64 = 2.0 * SMALLEST;
/// Growth has stopped where the last value is this share of the rise below the line.
const SHORT_OF_LINE: f64 = 0.08;
/// What remains after a fall is known when this many lie in the window: autocorrelated noise rises
/// between a few by chance.
const ENOUGH_FALLS: usize = 6;
/// How many times the window is looked back for growth that decays, and for falls.
const LOOK_BACK: f64 = 8.0;

/// Judges a series as it stands.
pub fn judge(series: &Series, nature: Nature) -> Verdict {
    let span = series.span();
    let reported = series.last(REPORTED);
    let Some(window) = Window::new(reported).filter(|w| w.seconds >= SHORTEST) else {
        return too_short(series.points(), nature);
    };
    let level = reported.last().map_or(0.0, |p| p.bytes);
    let kind = shape(&window, level);

    if let Some(leaking) = leaking_window(series) {
        return leak(series.last(leaking), kind, nature);
    }
    let (kind, leak, why) = match kind {
        Kind::Growing => match growth_is_over(series) {
            true => {
                (Kind::Step, Some(false), format!("it grew, and has stopped ({span:.0} s seen)"))
            }
            false => (kind, None, need_more(window.seconds)),
        },
        Kind::Flat => (kind, Some(false), format!("flat for {:.0} s", window.seconds)),
        Kind::Sawtooth => (
            kind,
            Some(false),
            format!("it falls back, {} times in {:.0} s", window.drops, window.seconds),
        ),
        Kind::Step | Kind::WarmingUp | Kind::Undecided if growth_is_over(series) => {
            (kind, Some(false), format!("nothing grew in the last {:.0} s", quiet_time(span)))
        }
        Kind::WarmingUp => {
            (kind, Some(false), format!("growth is slowing down ({:.0} s seen)", window.seconds))
        }
        Kind::Step | Kind::Undecided => (kind, None, need_more(window.seconds)),
    };
    let (leak, why) = match nature {
        Nature::Harmless(reason) => (Some(false), reason.to_owned()),
        Nature::Held => (leak, why),
    };
    verdict(kind, leak, reported, why)
}

fn verdict(kind: Kind, leak: Option<bool>, window: &[Point], why: String) -> Verdict {
    let slope = theil_sen(&window[window.len() / 2..]);
    Verdict {
        kind,
        leak,
        bytes_per_s: slope.map(|s| s.median),
        interval: slope.map(|s| [s.low, s.high]),
        window_s: crate::series::span(window),
        why,
    }
}

fn too_short(points: &[Point], nature: Nature) -> Verdict {
    let wait = (SHORTEST - crate::series::span(points)).max(1.0);
    let (leak, why) = match nature {
        Nature::Harmless(reason) => (Some(false), reason.to_owned()),
        Nature::Held => (None, format!("too little seen: watch {wait:.0} s longer to know")),
    };
    verdict(Kind::Undecided, leak, points, why)
}

fn leak(window: &[Point], kind: Kind, nature: Nature) -> Verdict {
    let seconds = crate::series::span(window);
    // The longer window may show what was before the growth began; the growth itself is plain.
    let kind = if kind == Kind::Sawtooth { kind } else { Kind::Growing };
    match nature {
        Nature::Held => {
            let why =
                format!("its floor rose through all of the last {seconds:.0} s, undiminished");
            verdict(kind, Some(true), window, why)
        }
        Nature::Harmless(reason) => verdict(kind, Some(false), window, reason.to_owned()),
    }
}

fn need_more(seen: f64) -> String {
    format!("cannot tell from {seen:.0} s: watch {:.0} s longer to know", seen.max(SHORTEST))
}

/// The longest window that leaks, in seconds: its rate is the surest.
fn leaking_window(series: &Series) -> Option<f64> {
    let span = series.span();
    let (mut seconds, mut longest) = (SHORTEST, None);
    while seconds <= span {
        if leaks(series, seconds) {
            longest = Some(seconds);
        }
        // The whole span is the last try, so that no evidence lies unused.
        seconds = if seconds < span { (seconds * 2.0).min(span) } else { f64::INFINITY };
    }
    longest
}

fn leaks(series: &Series, seconds: f64) -> bool {
    let Some(window) = Window::new(series.last(seconds)) else { return false };
    let clear = window.rise >= LEAST_RISE && window.rise > CLEAR * window.noise;
    let goes_on = window.late_to_early() >= SLOWING && window.short < SHORT_OF_LINE * window.rise;
    if !clear || !goes_on || window.rising_bins() < BINS - 2 {
        return false;
    }
    // Under noise or a sawtooth the floor must have risen by a fair part of all that moved.
    if window.rise < window.range / 3.0 {
        return false;
    }
    if window.jump > window.rise / 3.0 && window.drops == 0 {
        // A few big steps: a longer window must show that they keep coming.
        return false;
    }
    let back = series.last(seconds * LOOK_BACK);
    !decayed(back, seconds) && !may_fall(back, &window)
}

/// Whether the longer time shows growth that slows down.
fn decayed(back: &[Point], seconds: f64) -> bool {
    Window::new(back).is_some_and(|longer| {
        longer.seconds > 1.5 * seconds
            && longer.rising_bins() >= BINS - 2
            && longer.late_to_early() < SLOWING
    })
}

/// Whether a fall as deep as half of this rise was seen, and too few of them lie in the window to
/// know what remains after one.
fn may_fall(back: &[Point], window: &Window) -> bool {
    let deep = window.rise / 2.0;
    let from = window.floors[0].time_s;
    let (mut high, mut falls_before, mut falls_within) = (f64::MIN, 0, 0);
    for point in back {
        high = high.max(point.bytes);
        if high - point.bytes > deep {
            *(if point.time_s < from { &mut falls_before } else { &mut falls_within }) += 1;
            high = point.bytes;
        }
    }
    match falls_within {
        0 => falls_before > 0,
        few => few < ENOUGH_FALLS,
    }
}

fn quiet_time(span: f64) -> f64 {
    (span / 3.0).clamp(SHORTEST / 3.0, 60.0)
}

/// Whether the last third (at most a minute of it) did not grow.
fn growth_is_over(series: &Series) -> bool {
    let recent = series.last(quiet_time(series.span()));
    let (Some(first), Some(last)) = (recent.first(), recent.last()) else { return false };
    let lowest_late = recent[recent.len() / 2..].iter().map(|p| p.bytes).fold(f64::MAX, f64::min);
    let small = (SMALLEST / 4.0).max(last.bytes / 400.0);
    recent.len() >= 4 && lowest_late - first.bytes < small && last.bytes - first.bytes < small
}
