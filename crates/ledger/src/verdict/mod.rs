//! Growth gets an honest verdict: its shape, and apart from it the judgement.
//!
//! The shape ([`Kind`]) is what the series did on a stated window. The judgement (`leak`) is true
//! only where the *floor* of the series rose, through a whole window, by far more than its noise,
//! without slowing down, and where no fall of that size was seen that could come again. Tests of
//! significance alone are false-alarm machines: autocorrelated noise passes them.
//!
//! Windows of 45 s, 68 s, 101 s … are tried, so that a fast leak is seen soon and a slow one under
//! noise is seen in time. A short window is believed only if the longer time before it does not
//! show growth that decays, and no fall after growing for as long. When growth stops for longer than
//! it ever paused, the judgement is withdrawn. Where a watch ends before 45 s, the last word is said
//! of what there is, from 18 s on.

mod climb;
mod evidence;
mod judge;
mod shape;
mod slope;
mod window;

use serde::{Deserialize, Serialize};

pub use judge::judge;
pub(crate) use judge::leaking;
pub(crate) use window::deepest;

/// The shape of a series on the stated window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It stays where it is.
    Flat,
    /// It grows, ever more slowly.
    WarmingUp,
    /// It rises and falls back, again and again.
    Sawtooth,
    /// It rose once.
    Step,
    /// It grows and does not slow down.
    Growing,
    /// Too short, or nothing of the above.
    Undecided,
}

/// What growth of a layer can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Somebody holds these bytes: growth without end is a leak.
    Held,
    /// Somebody holds these bytes, and a collector that cannot be seen frees them when it sees fit.
    Collected,
    /// Growth is no leak, for this reason.
    Harmless(&'static str),
}

/// When a verdict is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// While the watch goes on: a judgement that comes later is better than one that is taken back.
    Watching,
    /// At its end: what there is to see was seen.
    Ending,
}

/// Through so many seconds growth must go on before it is called a leak while a watch goes on: most
/// of what fills and stops has stopped by then.
const PATIENCE: f64 = 45.0;
/// And through so many at the end of a watch.
pub(crate) const SHORTEST: f64 = 18.0;
/// A collector's heap grows like a leak until its first collections.
const COLLECTION: f64 = 90.0;

pub(crate) fn patience(nature: Nature, when: When) -> f64 {
    match (nature, when) {
        (Nature::Collected, _) => COLLECTION,
        (_, When::Watching) => PATIENCE,
        (_, When::Ending) => SHORTEST,
    }
}

/// Shape and judgement of one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The shape.
    pub kind: Kind,
    /// True: it leaks. False: it does not. `None`: cannot tell yet.
    pub leak: Option<bool>,
    /// Robust slope on the last half of the window.
    pub bytes_per_s: Option<f64>,
    /// The slope's 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// How many seconds the verdict speaks of.
    pub window_s: f64,
    /// Why, in one sentence.
    pub why: String,
}
