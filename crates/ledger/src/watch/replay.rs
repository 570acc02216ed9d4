//! A watch from a file: our own record, or another tool's series of time and bytes.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::csv::Columns;
use super::nature::{halves_of, whole_of};
use super::observe::CHEAP;
use super::tree::{self, Member};
use super::{History, Line, Observation};
use crate::beyond::Files;
use crate::verdict::When;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line is neither JSON of a record nor a row of time and bytes.
    #[error(
        "line {number}: expected a record of `plumb watch`, or time and bytes (`time_s,rss_bytes`), \
         got {text:?}"
    )]
    Line {
        /// Counted from 1.
        number: usize,
        /// Its beginning.
        text: String,
    },
    /// The file has no observation.
    #[error("nothing to replay: the file holds no observation")]
    Empty,
    /// Time never goes on.
    #[error("the times do not rise: sort the rows by time, oldest first")]
    Backwards,
    /// The file cannot be read.
    #[error("cannot read the record: {0}")]
    Io(#[from] std::io::Error),
}

/// Histories rebuilt from a file, by pid and start; a series of another tool has pid 0.
#[derive(Debug, Default)]
pub struct Replay {
    histories: BTreeMap<(u32, u64), History>,
    first: Option<f64>,
    columns: Option<Columns>,
    /// What was taken for a head may be a comment.
    is_comment: bool,
    rows: usize,
    latest: f64,
}

impl Replay {
    /// Reads a whole record. After each observation `look` gets the line that a live watch would
    /// print; where there is none, nothing is judged before the end.
    ///
    /// # Errors
    /// The first line that is not understood, or an empty file.
    pub fn read(
        input: impl BufRead,
        mut look: Option<&mut dyn FnMut(&Line)>,
    ) -> Result<Vec<Line>, ReplayError> {
        let mut replay = Self::default();
        for (index, text) in input.lines().enumerate() {
            let text = text?;
            let text = text.trim_start_matches('\u{feff}');
            let Some(Row { pid, start, name, time, seen }) = replay.parse(index + 1, text)? else {
                continue;
            };
            // A record counts from its watch's start; another tool's clock has any origin.
            let origin = if text.starts_with('{') { 0.0 } else { time };
            let begun = *replay.first.get_or_insert(origin);
            replay.rows += 1;
            replay.latest = replay.latest.max(time - begun);
            let history = replay
                .histories
                .entry((pid, start))
                .or_insert_with(|| History::new(pid).begun_at(start));
            if !name.is_empty() {
                history.set_name(name);
            }
            history.observe(time - begun, &seen);
            if let Some(look) = &mut look {
                look(&history.line(|| None, false));
            }
        }
        if replay.rows > 2 && replay.latest <= 0.0 {
            return Err(ReplayError::Backwards);
        }
        if replay.histories.is_empty() {
            return Err(ReplayError::Empty);
        }
        // All that run are looked at in the end, and of children that ended, leaks alone are told.
        let ended = |history: &History| history.time() < replay.latest;
        let is_past = |history: &History| history.inherited.is_some() && ended(history);
        let (past, kept): (Vec<&History>, Vec<&History>) =
            replay.histories.values().partition(|history| is_past(history));
        let mut members: Vec<Member> =
            past.iter().filter_map(|history| Member::new(history, None, true)).collect();
        tree::forget(&mut members, replay.latest);
        let lives = tree::lives(&members, replay.latest);
        let last_words = |history: &&History| history.last_words(replay.latest, &lives);
        let mut lines: Vec<Line> = past.iter().filter_map(last_words).collect();
        for history in kept {
            let line = Line { ended: ended(history), ..history.last_line(|| None, &lives) };
            members.extend(Member::new(history, Some(&line.verdict), ended(history)));
            lines.push(line);
        }
        Line::worst_last(&mut lines);
        let members: Vec<&Member> = members.iter().collect();
        tree::beside(&mut lines, tree::line(&members, || None, When::Ending));
        Ok(lines)
    }
}

impl Replay {
    /// What one line saw; `None` for a head, a comment, an empty line or a missing value.
    fn parse(&mut self, number: usize, text: &str) -> Result<Option<Row>, ReplayError> {
        let fault = || {
            let text = text.chars().take(80).collect();
            ReplayError::Line { number, text }
        };
        if text.starts_with('{') {
            return recorded(text).ok_or_else(fault);
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        let row = match &self.columns {
            Some(columns) => columns.row(text),
            // The first line is a row, or names the columns.
            None => Columns::plain().row(text),
        };
        match row {
            Ok(row) => {
                self.columns.get_or_insert_with(Columns::plain);
                let seen = |rss| Observation { rss, ..Observation::default() };
                let of = |(pid, time, rss)| Row {
                    pid,
                    start: 0,
                    name: String::new(),
                    time,
                    seen: seen(rss),
                };
                Ok(row.map(of))
            }
            // A comment before it is no head.
            Err(()) if self.columns.is_none() || self.rows == 0 && self.is_comment => {
                self.is_comment = text.starts_with('#') || text.starts_with("CMDLINE");
                self.columns = Some(Columns::of_head(text));
                Ok(None)
            }
            Err(()) if text.starts_with('#') => Ok(None),
            Err(()) => Err(fault()),
        }
    }
}

/// What one line of a file says.
struct Row {
    pid: u32,
    start: u64,
    name: String,
    time: f64,
    seen: Observation,
}

/// `None` of what is no record; nothing of a line that only says what others showed.
fn recorded(text: &str) -> Option<Option<Row>> {
    let line: Line = serde_json::from_str(text).ok()?;
    if line.processes.is_some() {
        return Some(None);
    }
    let unnamed = &line.unnamed;
    // A row is old where its other name was seen.
    let old = |name: &str| {
        whole_of(name).is_some_and(|whole| unnamed.contains_key(whole))
            || halves_of(name).is_some_and(|[half, _]| unnamed.contains_key(half))
    };
    let layers = line
        .layers
        .iter()
        .map(|row| (&row.layer, row.resident_bytes))
        .filter(|(name, _)| {
            line.sampled || CHEAP.contains(&name.as_str()) || line.counted.contains(name)
        })
        .filter(|(name, _)| !old(name))
        .chain(unnamed.iter().map(|(name, &bytes)| (name, bytes)))
        .map(|(name, bytes)| (name.clone(), bytes as f64))
        .collect();
    let counters = line.counters.into_iter().map(|(name, bytes)| (name, bytes as f64));
    let seen = Observation {
        rss: line.rss_bytes as f64,
        counters: counters.collect(),
        layers,
        shared_bound: line.shared_bound_bytes.map(|bytes| bytes as f64),
        private_share: line.private_share_bytes.map(|both| both.map(|bytes| bytes as f64)),
        inherited: line.inherited_bytes.map(|bytes| bytes as f64),
        code_data: line.code_data_bytes.map(|both| both.map(|bytes| bytes as f64)),
        faults: 0,
        files: Files::default(),
        of_others: line.memfd_of_others_bytes.map(|bytes| bytes as f64),
        java_heap: line.java_heap,
        java_data: None,
        mapped_files: Vec::new(),
        scheduled_s: line.scheduled_s,
        throttled_s: None,
        sampled: line.sampled,
        collected: line.collected,
    };
    let Line { pid, start_ticks: start, name, time_s: time, .. } = line;
    Some(Some(Row { pid, start, name, time, seen }))
}
