//! Descends the layers for one process tree until it names the culprit; writes the report.
//!
//! Must never know serving.
//!
//! # Design
//! [`run`] attaches everything that is cheap at once (mapping tracepoints, ledger, hooks), watches
//! for the time it was given, asks the ledger where the growth is, and gives [`Report`]: verdict,
//! culprits by stack, hooks, advice. [`show`] and [`export`] turn a report into text, HTML and the
//! forms of other tools. What to do comes from a table ([`Table`], `advice.toml`), each line with the
//! evidence that must be present.
#![forbid(unsafe_code)]

mod advice;
mod allocators;
mod cost;
mod culprits;
mod error;
pub mod export;
mod growth;
mod holder;
mod launch;
mod objects;
mod profiles;
mod report;
mod run;
mod short;
pub mod show;
mod untraced;

pub use advice::{Advice, Table};
pub use error::Error;
pub use growth::{Track, Verdict};
pub use launch::Launched;
pub use objects::{Objects, TypeGrowth, Waiting};
pub use profiles::OwnProfile;
pub use report::{Cost, Culprit, Report, Way};
pub use run::{Floor, Options, Progress, run};
