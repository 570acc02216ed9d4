//! A sample as text for a person.

use std::fmt::{self, Write};

use plumb_target::printable;

use crate::Together;
use crate::cgroup::Group;
use crate::sample::{LayerRow, Sample};

/// How many parts of a layer are named in the table.
const NAMED: usize = 3;

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} ({}): {} resident in {} mappings, {} when shared pages are divided",
            self.pid,
            shorten(&self.name),
            bytes(self.rss_bytes),
            self.vmas,
            bytes(self.pss_bytes)
        )?;
        for row in self.layers.iter().filter(|row| row.resident_bytes > 0) {
            line(out, self, row)?;
        }
        let share = percent(self.residual_bytes.unsigned_abs(), self.rss_bytes);
        let sign = if self.residual_bytes < 0 { "-" } else { "" };
        let residual = bytes(self.residual_bytes.unsigned_abs());
        writeln!(out, "  {:<16}{:>12}{share:>8}", "residual", format!("{sign}{residual}"))?;
        self.write_beyond(out)?;
        for note in &self.notes {
            writeln!(out, "  note: {note}")?;
        }
        let cost = &self.cost;
        writeln!(
            out,
            "  cost: classification {}, heap {}, python {}, huge pages {}, beyond RSS {}",
            milliseconds(cost.classification_s),
            milliseconds(cost.heap_s),
            milliseconds(cost.python_s),
            milliseconds(cost.huge_pages_s),
            milliseconds(cost.beyond_s)
        )
    }
}

impl Sample {
    fn write_beyond(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.beyond_rss.iter().filter(|b| b.bytes != Some(0));
        let mut text = String::new();
        for beyond in shown {
            let amount = beyond.bytes.map_or_else(|| "not visible".to_owned(), bytes);
            write!(text, "{} {amount}", beyond.kind.name())?;
            for item in beyond.items.iter().take(NAMED) {
                let held: Vec<String> = item.descriptors.iter().map(u32::to_string).collect();
                let name = shorten(&item.name);
                let by =
                    if held.is_empty() { String::new() } else { format!(" fd {}", held.join(",")) };
                write!(text, " [{name} {}{by}]", bytes(item.bytes))?;
            }
            text.push_str(", ");
        }
        writeln!(
            out,
            "  beyond RSS: {}",
            if text.is_empty() { "nothing" } else { text.trim_end_matches(", ") }
        )
    }
}

fn line(out: &mut fmt::Formatter<'_>, sample: &Sample, row: &LayerRow) -> fmt::Result {
    write!(
        out,
        "  {:<16}{:>12}{:>8}{:>7} VMAs ",
        row.layer.name(),
        bytes(row.resident_bytes),
        percent(row.resident_bytes, sample.rss_bytes),
        row.vmas
    )?;
    let mut between = " ";
    for part in row.biggest.iter().take(NAMED) {
        write!(out, "{between}{} {}", shorten(&part.name), bytes(part.resident_bytes))?;
        between = ", ";
    }
    if let (Some(clean), Some(dirty)) = (row.clean_bytes, row.dirty_bytes) {
        write!(out, " ({} clean, {} dirty)", bytes(clean), bytes(dirty))?;
    }
    writeln!(out)
}

impl fmt::Display for Group {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cgroup v{} {}: ", self.version, printable(&self.path))?;
        match self.usage_bytes {
            Some(usage) => write!(out, "{} used", bytes(usage))?,
            None => write!(out, "not counted as a whole")?,
        }
        if let Some(limit) = self.limit_bytes {
            write!(out, " of {}", bytes(limit))?;
        }
        for (name, amount) in &self.split {
            write!(out, ", {name} {}", bytes(*amount))?;
        }
        let Together { processes, .. } = &self.together;
        writeln!(out, "; its {processes} processes shown here: {}", self.together)
    }
}

pub(crate) fn shorten(name: &str) -> String {
    const LONGEST: usize = 48;
    let clean = printable(name);
    let length = clean.chars().count();
    if length <= LONGEST {
        return clean;
    }
    let tail: String = clean.chars().skip(length - LONGEST + 1).collect();
    format!("…{tail}")
}

/// Bytes for a person: three figures and a unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_and_names_no_control_characters() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(shorten("a\x1b[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(shorten(&"x".repeat(90)).chars().count(), 48);
    }

    #[test]
    fn nothing_that_a_target_calls_itself_or_its_files_reaches_the_terminal_as_it_is() {
        let mut sample =
            crate::take(&plumb_target::Process::own(), crate::Depth::CLASSIFY).unwrap();
        let evil = || "a\x1b[31m\nb".to_owned();
        sample.name = evil();
        let item = crate::beyond::Item { name: evil(), bytes: 1, descriptors: vec![3] };
        sample.beyond_rss[0].bytes = Some(1);
        sample.beyond_rss[0].items = vec![item];
        let text = sample.to_string();
        assert_eq!(text.matches("a\u{fffd}[31m\u{fffd}b").count(), 2, "{text}");
        assert!(!text.contains('\x1b'));
    }
}
