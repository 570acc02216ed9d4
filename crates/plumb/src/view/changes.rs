//! A watch where there is no terminal to draw on: a line when a judgement changes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use plumb_ledger::watch::Line;

use super::watch::judgement;

/// What was said last of each process.
#[derive(Debug, Default)]
pub struct Changes(BTreeMap<u32, (Option<bool>, Option<String>)>);

impl Changes {
    /// Says on standard error what changed, and forgets who is not `alive`. Nobody needs to hear that
    /// it is too early to tell.
    pub fn tell(&mut self, lines: &[Line], alive: impl Fn(u32) -> bool) {
        for line in lines {
            let now = (line.verdict.leak, line.verdict.layer.clone());
            let known = self.0.insert(line.pid, now.clone());
            let news = match &known {
                None => now.0.is_some(),
                Some(known) => known.0 != now.0 || (now.0 == Some(true) && *known != now),
            };
            if news {
                // A closed standard error is no reason to stop watching.
                let _closed = writeln!(io::stderr(), "{}", judgement(line));
            }
        }
        self.0.retain(|&pid, _| alive(pid));
    }
}
