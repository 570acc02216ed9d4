//! Folded stacks: one line a stack, outermost frame first, then its bytes.

use super::{label, weight};
use crate::report::Report;

/// `main;serve;pool_grow 48103424`
pub fn folded(report: &Report) -> String {
    let line = |c: &crate::report::Culprit| {
        let frames: Vec<String> = c.frames.iter().rev().map(|f| clean(&label(f))).collect();
        format!("{} {}\n", frames.join(";"), weight(c))
    };
    report.culprits.iter().map(line).collect()
}

/// The form has no escapes: what separates fields cannot be in a name.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}
