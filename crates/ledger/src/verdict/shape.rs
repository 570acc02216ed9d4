//! The shape of one window.

use super::Kind;
use super::window::{BINS, Window};

/// Less than this is not worth a word, whatever its shape.
pub(crate) const SMALLEST: f64 = (1 << 20) as f64;
/// A floor that rose this many times its noise did not do so by chance.
pub(crate) const CLEAR: f64 = 12.0;
/// Growth is slowing down when its late rate is less than this share of its early rate.
pub(crate) const SLOWING: f64 = 0.75;

/// What the window looks like; `level` is the series' last value, against which a change is small.
pub(crate) fn shape(window: &Window, level: f64) -> Kind {
    let small = SMALLEST.max(level / 100.0);
    if window.range < small {
        return Kind::Flat;
    }
    if window.jump > 0.6 * window.range && window.deepest < window.range / 4.0 {
        return Kind::Step;
    }
    // The floors of a sawtooth rise only when something grows below it.
    if window.drops >= 2 && window.rise < window.range / 2.0 {
        return Kind::Sawtooth;
    }
    if window.rise.abs() < small && window.noise < small {
        return if window.deepest > window.range / 2.0 { Kind::Sawtooth } else { Kind::Flat };
    }
    if window.rise > small && window.rise > CLEAR * window.noise {
        return if window.late_to_early() < SLOWING { Kind::WarmingUp } else { Kind::Growing };
    }
    // A curve lies off its line, which looks like noise: growth that slows down is seen in its bins.
    let slowing = window.late_to_early() < SLOWING && window.standing_bins() < BINS / 2;
    if slowing && window.deepest < window.range / 4.0 { Kind::WarmingUp } else { Kind::Undecided }
}
