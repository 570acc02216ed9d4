//! From a series to its verdict.

use super::climb::Climb;
use super::evidence::{growth_is_over, leaking_window, quiet_time};
use super::shape::{SMALLEST, shape};
use super::slope::rate;
use super::window::{BINS, Window};
use super::{Kind, Nature, SHORTEST, Verdict, When, patience};
use crate::series::{Point, Series};

/// The window that is reported where nothing leaks.
const REPORTED: f64 = 600.0;

/// Steps larger than this share of the whole are few.
const FEW_STEPS: f64 = 0.04;

/// Judges a series as it stands.
pub fn judge(series: &Series, nature: Nature, when: When) -> Verdict {
    let span = series.span();
    let reported = series.last(REPORTED);
    if let Some(still) = still(reported, nature) {
        return still;
    }
    let Some(window) = Window::new(reported).filter(|w| w.seconds >= SHORTEST) else {
        return too_short(series.points(), nature);
    };
    let level = reported.last().map_or(0.0, |p| p.bytes);
    let kind = shape(&window, level);

    if let Some(leaking) = leaking_window(series, nature, when) {
        // The longer window may show what was before the growth began; the growth itself is plain.
        let kind = if kind == Kind::Sawtooth { kind } else { Kind::Growing };
        let leaking = self::leaking(series.last(leaking), kind);
        return match nature {
            Nature::Held | Nature::Collected => leaking,
            Nature::Harmless(reason) => {
                Verdict { leak: Some(false), why: reason.to_owned(), ..leaking }
            }
        };
    }
    let (kind, leak, why) = match kind {
        Kind::Growing => match growth_is_over(series) {
            true => {
                (Kind::Step, Some(false), format!("it grew, and has stopped ({span:.0} s seen)"))
            }
            false => (kind, None, need_more(window.seconds, nature)),
        },
        Kind::Flat => (kind, Some(false), format!("flat for {:.0} s", window.seconds)),
        Kind::Sawtooth if below_it_something_grows(&window) => {
            (kind, None, need_more(window.seconds, nature))
        }
        Kind::Sawtooth => (
            kind,
            Some(false),
            format!("it falls back, {} times in {:.0} s", window.drops.max(1), window.seconds),
        ),
        Kind::Step | Kind::WarmingUp | Kind::Undecided if growth_is_over(series) => {
            // What grew evenly and stopped has no shape of its own: seen from here it rose once.
            let gained = level - reported.first().map_or(0.0, |p| p.bytes);
            let rose = kind == Kind::Undecided && gained > window.range / 2.0;
            let kind = if rose { Kind::Step } else { kind };
            (kind, Some(false), format!("nothing grew in the last {:.0} s", quiet_time(span)))
        }
        // Between collections its growth slows down and does not, by when it was looked at.
        Kind::WarmingUp if matches!(nature, Nature::Collected) && span < patience(nature, when) => {
            (kind, None, need_more(window.seconds, nature))
        }
        Kind::WarmingUp => {
            (kind, Some(false), format!("growth is slowing down ({:.0} s seen)", window.seconds))
        }
        Kind::Step | Kind::Undecided => (kind, None, need_more(window.seconds, nature)),
    };
    let (leak, why) = match nature {
        Nature::Harmless(reason) => (Some(false), reason.to_owned()),
        Nature::Held | Nature::Collected => (leak, why),
    };
    verdict(kind, leak, reported, why)
}

/// What hardly moves needs no further look: of many layers of many processes, most are so.
fn still(points: &[Point], nature: Nature) -> Option<Verdict> {
    let seconds = crate::series::span(points);
    let range = |(low, high): (f64, f64), p: &Point| (low.min(p.bytes), high.max(p.bytes));
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), range);
    if seconds < SHORTEST || high - low > SMALLEST / 4.0 {
        return None;
    }
    let (first, last) = (points.first()?, points.last()?);
    let (rate, off) = ((last.bytes - first.bytes) / seconds, (high - low) / seconds);
    let why = match nature {
        Nature::Harmless(reason) => reason.to_owned(),
        _ => format!("flat for {seconds:.0} s"),
    };
    Some(Verdict {
        kind: Kind::Flat,
        leak: Some(false),
        bytes_per_s: Some(rate),
        interval: Some([rate - off, rate + off]),
        window_s: seconds,
        why,
    })
}

/// Whether the floors of a sawtooth rise, so that what remains is not known yet.
fn below_it_something_grows(window: &Window) -> bool {
    window.rise > SMALLEST.max(window.range / 8.0) && window.standing_bins() <= BINS / 3
}

fn verdict(kind: Kind, leak: Option<bool>, window: &[Point], why: String) -> Verdict {
    let slope = rate(&window[window.len() / 2..]);
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
    let span = crate::series::span(points);
    let why = match SHORTEST - span {
        wait if wait > 0.0 => {
            format!("too little seen: watch {:.0} s longer to know", wait.max(1.0))
        }
        _ => format!("looked at too rarely in {span:.0} s to know: watch {span:.0} s longer"),
    };
    let (leak, why) = match nature {
        Nature::Harmless(reason) => (Some(false), reason.to_owned()),
        Nature::Held | Nature::Collected => (None, why),
    };
    verdict(Kind::Undecided, leak, points, why)
}

/// The verdict on a window that leaks, in this shape.
pub(crate) fn leaking(window: &[Point], kind: Kind) -> Verdict {
    let seconds = crate::series::span(window);
    let why = format!("its floor rose through all of the last {seconds:.0} s, undiminished");
    let mut verdict = verdict(kind, Some(true), window, why);
    // In half of the window lie too few steps or teeth to know their mean.
    if kind == Kind::Sawtooth || Climb::new(window).is_some_and(|c| c.step > FEW_STEPS * c.kept) {
        let slope = rate(window);
        verdict.bytes_per_s = slope.map(|s| s.median);
        verdict.interval = slope.map(|s| [s.low, s.high]);
    }
    verdict
}

fn need_more(seen: f64, nature: Nature) -> String {
    let patience = patience(nature, When::Watching);
    let more = if seen < patience { (patience - seen).max(1.0) } else { seen };
    let whose = match nature {
        Nature::Collected => " of a heap that a collector frees",
        _ => "",
    };
    format!("cannot tell from {seen:.0} s{whose}: watch {more:.0} s longer to know")
}
