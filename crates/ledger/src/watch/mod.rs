//! The ledger over time: what a watch sees at each look, and what it says of it.
//!
//! Counters of `/proc/PID/status` are looked at every time: they cost almost nothing and give the
//! shape. A full sample says which layer it is, as often as the cost budget allows; a layer with
//! enough samples of its own is judged on them, one with few shares the shape of its counter.
//!
//! What many processes hold together is judged beside each of them (`tree`).
//!
//! [`History`] holds one process's series and judges them; it does not know where its
//! observations come from, so that a replay judges as a live watch does. [`Watcher`] makes
//! observations of living processes; [`Replay`] reads them from a file.

mod borne_out;
mod collector;
mod copies;
mod copying;
mod csv;
mod ending;
mod held;
mod history;
mod limit;
mod line;
mod mapped;
mod nature;
mod observe;
mod pace;
mod replay;
mod tree;
mod waits;
mod watched;
mod watcher;

pub use history::History;
pub use limit::{Limit, nearest as nearest_limit};
pub use line::{JavaLine, LayerLine, Line, Summary};
pub use nature::{halves_of, whole_of};
pub use observe::{Counter, Observation};
pub use pace::cpu;
pub use replay::{Replay, ReplayError};
pub use watcher::{Change, Options, Watcher};
