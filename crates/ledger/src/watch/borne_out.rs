//! Whether what one series shows is borne out by what was seen beside it.

use super::history::{FAIR_SHARE, FRESH, RECENT, rate};
use crate::series::{Point, Series};
use crate::verdict::{Kind, Verdict, deepest};

/// A layer that follows another grows at most at this share of its rate: a page of entries maps 2 MiB,
/// but heaps whose pieces lie far apart (V8's) need one for 64 KiB.
const FOLLOWS: f64 = 0.1;

/// The rate of a series through a window and a little before, from its first look to its last.
pub(super) fn gain(series: &Series, window_s: f64) -> Option<f64> {
    match series.last(window_s + RECENT / 2.0) {
        [first, .., last] => Some((last.bytes - first.bytes) / (last.time_s - first.time_s)),
        _ => None,
    }
}

/// Whether a layer gave back half of what it took: its counter may hold what an allocator kept of it.
pub(super) fn falls_back(looks: &[Point]) -> bool {
    let lowest = looks.iter().map(|p| p.bytes).fold(f64::MAX, f64::min);
    let highest = looks.iter().map(|p| p.bytes).fold(f64::MIN, f64::max);
    deepest(looks) > (highest - lowest) / 2.0
}

/// A layer's growth up to its last look is believed as long as the counter that holds it goes on.
pub(super) fn confirmed(verdict: Verdict, layer: &Series, whole: &Series) -> Verdict {
    let (Some(looked), Some(now)) = (layer.points().last(), whole.points().last()) else {
        return verdict;
    };
    let age = now.time_s - looked.time_s;
    if verdict.leak != Some(true) || age < FRESH {
        return verdict;
    }
    let gained = now.bytes - whole.last(age).first().map_or(0.0, |then| then.bytes);
    if gained >= FAIR_SHARE * rate(&verdict) * age {
        return verdict;
    }
    let why = format!("not seen to grow in the last {age:.0} s, since its layer was looked at");
    Verdict { leak: None, why, ..verdict }
}

/// Page tables are as large as what is mapped demands: their growth is no news beside it.
pub(super) fn follow(verdicts: &mut [(&str, Verdict)], whole: &Verdict) {
    let tables = verdicts.iter_mut().find(|(name, _)| *name == "page_tables");
    if let Some((_, verdict)) = tables.filter(|(_, v)| rate(v) <= FOLLOWS * rate(whole)) {
        verdict.leak = Some(false);
        verdict.why = "page tables follow what is mapped".into();
    }
}

/// Too short to know, though nothing moves, is no reason to be undecided about the whole.
pub(super) fn moved(verdict: &Verdict) -> bool {
    verdict.kind != Kind::Flat
}

/// Whether it grew in all that was seen of it, by so much that it needs an answer.
pub(super) fn grew(series: &Series) -> bool {
    const MUCH: f64 = (1 << 20) as f64;
    matches!(series.points(), [first, .., last] if last.bytes - first.bytes >= MUCH)
}
