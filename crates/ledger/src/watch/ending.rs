//! What is said of a process when it ended, or the watch does.

use super::tree::replaced;
use super::{History, Limit, Line};
use crate::verdict::When;

/// In seconds; looks at what moves are a second apart.
const WITH_ALL: f64 = 1.5;

/// Whether one was seen almost to the end of all: a server's workers end a moment before it does.
pub(super) fn ended_with_all(time: f64, latest: f64) -> bool {
    latest - time <= WITH_ALL
}

impl History {
    /// What is left to say of a child that ended before all did, of which others like it ended, too (in so many
    /// seconds each), where `latest` is when anything was seen last: it gave its memory back, and only a leak is
    /// told. Else a script that starts a thousand short programs would leave a thousand open questions.
    pub(super) fn last_words(&self, latest: f64, lives: &[f64]) -> Option<Line> {
        let line = if ended_with_all(self.time(), latest) {
            Some(self.last_line(|| None, lives)).filter(|line| line.verdict.leak == Some(true))
        } else {
            self.leaks().then(|| self.line(|| None, true))
        };
        line.map(|line| Line { ended: true, ..line })
    }

    /// The final line of a child of which others like it ended before (in so many seconds each).
    pub(super) fn last_line(&self, limit: impl FnOnce() -> Option<Limit>, lives: &[f64]) -> Line {
        // What it has it may be about to give back, as they did: the end of the watch is no end of it.
        let passes = self.inherited.is_some() && replaced(lives, self.rss.span());
        let when = if passes { When::Watching } else { When::Ending };
        let line = self.judged(limit, when, true);
        let brief = self.inherited.is_some() && (self.is_brief() || passes);
        Line { brief: brief && line.verdict.leak.is_none(), ..line }
    }
}
