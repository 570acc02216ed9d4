//! Growth gets an honest verdict: its shape, and apart from it the judgement.
//!
//! The shape ([`Kind`]) is what the series did on a stated window. The judgement (`leak`) is true
//! only where the *floor* of the series rose, through a whole window, by far more than its noise,
//! without slowing down, and where no fall of that size was seen that could come again. Tests of
//! significance alone are false-alarm machines: autocorrelated noise passes them.
//!
//! Windows of 18 s, 36 s, 72 s … are tried, so that a fast leak is seen soon and a slow one under
//! noise is seen in time. A short window is believed only if the longer time before it does not
//! show growth that decays. When growth stops, the last windows stop rising, and the judgement is
//! withdrawn.

mod judge;
mod shape;
mod slope;
mod window;

use serde::{Deserialize, Serialize};

pub use judge::judge;

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
    /// Growth is no leak, for this reason.
    Harmless(&'static str),
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
