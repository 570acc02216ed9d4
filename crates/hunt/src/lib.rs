//! Descends the layers for one process tree until it names the culprit; writes the report.
//!
//! Must never know serving.
#![forbid(unsafe_code)]
