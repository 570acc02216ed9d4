//! A watch from a file: our own record, or another tool's series of time and bytes.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::nature::{halves_of, whole_of};
use super::observe::CHEAP;
use super::{History, Line, Observation};

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line is neither JSON of a record nor two numbers.
    #[error("line {number}: expected a record of `plumb watch` or `time,bytes`, got {text:?}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// Its beginning.
        text: String,
    },
    /// The file has no observation.
    #[error("nothing to replay: the file holds no observation")]
    Empty,
    /// The file cannot be read.
    #[error("cannot read the record: {0}")]
    Io(#[from] std::io::Error),
}

/// Histories rebuilt from a file, by pid; a series of another tool has pid 0.
#[derive(Debug, Default)]
pub struct Replay {
    histories: BTreeMap<u32, History>,
    first: Option<f64>,
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
            let (pid, time, seen) = match parse(&text) {
                Some(parsed) => parsed,
                // A header of names, or an empty line.
                None if text.trim().is_empty() || (index == 0 && !text.starts_with('{')) => {
                    continue;
                }
                None => {
                    let text = text.chars().take(80).collect();
                    return Err(ReplayError::Line { number: index + 1, text });
                }
            };
            // A record counts from its watch's start; another tool's clock has any origin.
            let origin = if text.starts_with('{') { 0.0 } else { time };
            let begun = *replay.first.get_or_insert(origin);
            let history = replay.histories.entry(pid).or_insert_with(|| History::new(pid));
            history.observe(time - begun, &seen);
            if let Some(look) = &mut look {
                look(&history.line(None, false));
            }
        }
        if replay.histories.is_empty() {
            return Err(ReplayError::Empty);
        }
        Ok(replay.histories.values().map(|history| history.line(None, true)).collect())
    }
}

fn parse(text: &str) -> Option<(u32, f64, Observation)> {
    if text.trim_start().starts_with('{') {
        let line: Line = serde_json::from_str(text).ok()?;
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
            .filter(|(name, _)| line.sampled || CHEAP.contains(&name.as_str()))
            .filter(|(name, _)| !old(name))
            .chain(unnamed.iter().map(|(name, &bytes)| (name, bytes)))
            .map(|(name, bytes)| (name.clone(), bytes as f64))
            .collect();
        let counters = line.counters.into_iter().map(|(name, bytes)| (name, bytes as f64));
        let seen = Observation {
            rss: line.rss_bytes as f64,
            counters: counters.collect(),
            layers,
            sampled: line.sampled,
        };
        return Some((line.pid, line.time_s, seen));
    }
    let mut numbers = text.split([',', ';', '\t', ' ']).filter(|cell| !cell.trim().is_empty());
    let mut number = || numbers.next()?.trim().trim_matches('"').parse::<f64>().ok();
    let (time, rss) = (number()?, number()?);
    (time.is_finite() && rss.is_finite())
        .then(|| (0, time, Observation { rss, ..Observation::default() }))
}
