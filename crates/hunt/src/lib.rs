//! Descends the layers for one process tree until it names the culprit; writes the report.
//!
//! Must never know serving.
//!
//! # Design
//! [`run`] attaches everything that is cheap at once (mapping tracepoints, ledger, hooks), watches
//! for the time it was given, asks the ledger where the growth is, and gives [`Report`]: verdict,
//! culprits by stack, hooks, advice. How it is shown is [`report`]'s affair alone.
#![forbid(unsafe_code)]

mod cost;
mod culprits;
mod error;
mod growth;
mod report;
mod run;

pub use error::Error;
pub use growth::{Track, Verdict};
pub use report::{Cost, Culprit, Report};
pub use run::{Options, Progress, run};
