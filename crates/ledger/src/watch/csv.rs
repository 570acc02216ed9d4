//! A series that another tool recorded: a table of times and bytes, as text.

use std::borrow::Cow;

/// What the cells of a table mean, by its head or by what stands in its first row.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    time: usize,
    bytes: usize,
    pid: Option<usize>,
    /// Bytes of one unit of the column.
    unit: f64,
    /// Seconds of one unit of the column, where its head says so.
    second: Option<f64>,
    /// What stands between the cells of the head: nothing but spaces, or a sign.
    apart: Option<Option<char>>,
    /// Times of day are such as `ps` gives for how long a process has run.
    elapsed: bool,
    /// Only lines that begin so are rows.
    begins: &'static str,
}

const TIMES: [&str; 7] = ["time", "timestamp", "date", "elapsed", "etimes", "seconds", "ts"];
const BYTES: [&str; 10] =
    ["rss", "resident", "res", "real", "mem", "bytes", "used", "value", "size", "usage"];

impl Columns {
    /// A table without a head: time in seconds, then bytes.
    pub fn plain() -> Self {
        Self {
            time: 0,
            bytes: 1,
            pid: None,
            unit: 1.0,
            second: None,
            apart: None,
            elapsed: false,
            begins: "",
        }
    }

    /// By the names at its head; a name may end in a unit: `rss_kb`, `Real (MB)`, `time_ms`.
    pub fn of_head(text: &str) -> Self {
        let text = text.trim_start_matches('#').trim();
        // A line of memory_profiler's is `MEM`, MiB and time; its head is the command.
        if text.starts_with("CMDLINE") {
            return Self { time: 2, unit: 1024.0 * 1024.0, begins: "MEM ", ..Self::plain() };
        }
        let names: Vec<String> = cells(text, apart(text)).map(|name| name.to_lowercase()).collect();
        let words = |name: &str| -> Vec<String> {
            name.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
        };
        let find = |known: &[&str]| {
            let shares = |n: &str| n.contains('%') || n.contains("percent");
            let exact =
                |k: &str| names.iter().position(|n| !shares(n) && words(n).iter().any(|w| w == k));
            known.iter().find_map(|k| exact(k))
        };
        let time = find(&TIMES).unwrap_or(0);
        let bytes = find(&BYTES).filter(|at| *at != time).unwrap_or(usize::from(time == 0));
        let apart = apart(text);
        // ps, pidstat, top and smem, whose cells spaces part, count kB.
        let unit = if apart.is_none() && counts_kib(text) { 1024.0 } else { 1.0 };
        let unit_of = |at: usize, unit: fn(&str) -> Option<f64>| {
            words(names.get(at)?).iter().skip(1).rev().find_map(|word| unit(word))
        };
        Self {
            time,
            bytes,
            pid: names.iter().position(|name| name == "pid"),
            unit: unit_of(bytes, size_unit).unwrap_or(unit),
            second: unit_of(time, time_unit),
            apart: Some(apart),
            elapsed: names.get(time).is_some_and(|name| name.contains("elapsed")),
            begins: "",
        }
    }

    /// The pid (0 where the table has none), the time in seconds and the bytes of one row; `Ok(None)`
    /// where the row has no value; `Err` where it is none of the table.
    pub fn row(&self, text: &str) -> Result<Option<(u32, f64, f64)>, ()> {
        if !text.starts_with(self.begins) {
            return Ok(None);
        }
        let apart = self.apart.unwrap_or_else(|| apart(text));
        let cells: Vec<Cow<'_, str>> = cells(text, apart).collect();
        let cell = |at: usize| cells.get(at).map(AsRef::as_ref).ok_or(());
        // A decimal comma, where something else parts the cells; else one that parts thousands.
        let bytes = match apart {
            Some(';' | '\t' | '|') => cell(self.bytes)?.replace(',', "."),
            _ => cell(self.bytes)?.replace(',', ""),
        };
        // What is used, of how much.
        let bytes = bytes.split_once(" / ").map_or(bytes.as_str(), |(used, _)| used);
        if matches!(bytes.to_lowercase().as_str(), "" | "nan" | "null" | "none" | "-") {
            return Ok(None);
        }
        let bytes = size(bytes, self.unit).ok_or(())?;
        let time = cell(self.time)?.replace(',', ".");
        let time = match self.elapsed.then(|| elapsed(&time)).flatten() {
            Some(time) => time,
            None => seconds(&time, self.second).ok_or(())?,
        };
        let pid = self.pid.and_then(|at| cells.get(at)?.parse().ok()).unwrap_or(0);
        (bytes.is_finite() && time.is_finite()).then_some(Some((pid, time, bytes))).ok_or(())
    }
}

/// What parts the cells of a row, outside of quotes.
fn apart(text: &str) -> Option<char> {
    let outside = |c: char| text.split('"').step_by(2).any(|part| part.contains(c));
    [';', '\t', '|', ','].into_iter().find(|c| outside(*c))
}

/// Whether a head is of a tool that counts kB without saying so.
fn counts_kib(head: &str) -> bool {
    let known = ["RSS", "RES", "VSZ", "PSS", "USS"];
    head.split_whitespace().any(|word| known.contains(&word))
}

/// Cells between commas, semicolons, tabs or bars; where there are none, between spaces.
fn cells(text: &str, apart: Option<char>) -> impl Iterator<Item = Cow<'_, str>> {
    let text = text.trim();
    // Words of a head that are apart by one space belong together: `Real (MB)`.
    let two = text.contains("  ") && text.contains(" (");
    let split: Vec<Cow<'_, str>> = match apart {
        Some(apart) => {
            let mut quoted = false;
            let between = |c: char| {
                quoted ^= c == '"';
                c == apart && !quoted
            };
            text.split(between).map(Cow::from).collect()
        }
        None if two && text.contains(char::is_alphabetic) => {
            text.split("  ").filter(|cell| !cell.trim().is_empty()).map(Cow::from).collect()
        }
        None => text.split_whitespace().map(Cow::from).collect(),
    };
    split.into_iter().map(|cell| Cow::from(cell.trim().trim_matches('"').trim().to_owned()))
}

/// A number, with a unit of its own or in the column's: `12`, `1.5 GiB`, `300K`.
fn size(text: &str, otherwise: f64) -> Option<f64> {
    let end =
        text.find(|c: char| c.is_alphabetic() && !matches!(c, 'e' | 'E')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.trim().parse().ok()?;
    let unit = unit.trim();
    Some(number * if unit.is_empty() { otherwise } else { size_unit(&unit.to_lowercase())? })
}

/// As `ps`, `top` and the kernel use the words: a kB is 1,024 bytes.
fn size_unit(word: &str) -> Option<f64> {
    let power = match word {
        "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" | "kbytes" | "kilobytes" => 1,
        "m" | "mb" | "mib" | "mbytes" | "megabytes" => 2,
        "g" | "gb" | "gib" | "gbytes" | "gigabytes" => 3,
        _ => return None,
    };
    Some(1024.0_f64.powi(power))
}

fn time_unit(word: &str) -> Option<f64> {
    Some(match word {
        "s" | "sec" | "seconds" => 1.0,
        "ms" | "millis" | "milliseconds" => 1e-3,
        "us" | "micros" | "microseconds" => 1e-6,
        "ns" | "nanos" | "nanoseconds" => 1e-9,
        "min" | "minutes" => 60.0,
        "h" | "hours" => 3600.0,
        _ => return None,
    })
}

/// A number of seconds, or of smaller units where no clock shows so many seconds; a date and time;
/// or a time of day.
fn seconds(text: &str, unit: Option<f64>) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        let guess = match number.abs() {
            // Seconds since 1970 have ten digits, milliseconds thirteen.
            n if n < 1e11 => 1.0,
            n if n < 1e14 => 1e3,
            n if n < 1e17 => 1e6,
            _ => 1e9,
        };
        return Some(unit.map_or(number / guess, |unit| number * unit));
    }
    // Of a clock of twelve hours, the first is twelve.
    let upper = text.to_uppercase();
    let half =
        [(" AM", 0.0), (" PM", 43_200.0)].into_iter().find(|(word, _)| upper.ends_with(word));
    if let Some((word, noon)) = half {
        let time = seconds(&text[..text.len() - word.len()], unit)?;
        let twelve = (time % 86_400.0) >= 43_200.0;
        return Some(time + noon - if twelve { 43_200.0 } else { 0.0 });
    }
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (Some(date), time.trim()),
        None => (None, text),
    };
    let days = match date {
        Some(date) => days(date)?,
        None => 0.0,
    };
    let (time, offset) = zone(time)?;
    Some(days * 86_400.0 + clock(time)? - offset)
}

/// How long something has run: `34:56`, `12:34:56` or `3-12:34:56`.
fn elapsed(text: &str) -> Option<f64> {
    let (days, text) = text.split_once('-').unwrap_or(("0", text));
    let parts: Option<Vec<f64>> = text.split(':').map(|part| part.parse().ok()).collect();
    let parts = parts.filter(|parts| (2..=3).contains(&parts.len()))?;
    let time = parts.iter().fold(0.0, |time, part| time * 60.0 + part);
    Some(days.parse::<f64>().ok()? * 86_400.0 + time)
}

/// `12:34:56.7` or `12:34`.
fn clock(text: &str) -> Option<f64> {
    let mut parts = text.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), |s| s.parse().ok())?;
    parts.next().is_none().then_some(hours * 3600.0 + minutes * 60.0 + seconds)
}

/// A time without its zone, and how far the zone is ahead.
fn zone(text: &str) -> Option<(&str, f64)> {
    if let Some(time) = text.strip_suffix('Z').or(text.strip_suffix(" UTC")) {
        return Some((time, 0.0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0.0)) };
    let (time, zone) = text.split_at(at);
    let (sign, zone) = zone.split_at(1);
    let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let ahead = hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().unwrap_or(0.0) * 60.0;
    Some((time.trim(), if sign == "-" { -ahead } else { ahead }))
}

/// Days since 1970, as civil calendars count them (months from March, so that leap days end years).
fn days(date: &str) -> Option<f64> {
    let mut parts = date.split(['-', '/']).map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some((year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - 719_468) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, row: &str) -> Option<(u32, f64, f64)> {
        Columns::of_head(head).row(row).expect("a row")
    }

    #[test]
    fn heads_of_other_tools() {
        assert_eq!(read("time_s,rss", "3,100"), Some((0, 3.0, 100.0)));
        assert_eq!(
            read("timestamp;pid;rss_kb", "1700000000.5;7;2"),
            Some((7, 1.7e9 + 0.5, 2048.0))
        );
        let psrecord = "# Elapsed time   CPU (%)     Real (MB)   Virtual (MB)";
        assert_eq!(
            read(psrecord, "  2.000   99.0   1.500   10.0"),
            Some((0, 2.0, 1.5 * 1048576.0))
        );
        assert_eq!(read("rss,time_ms", "5,1500"), Some((0, 1.5, 5.0)));
        assert_eq!(read("ELAPSED RSS", "12 64"), Some((0, 12.0, 65_536.0)));
        assert_eq!(read("Time,Value", "1970-01-02T00:00:01.5Z,9"), Some((0, 86_401.5, 9.0)));
        assert_eq!(read("a,b", "2000-03-01 00:00:00+01:00,1 GiB").expect("a row").1, 951_865_200.0);
        assert_eq!(read("time,mem", "00:01:02,1.5M"), Some((0, 62.0, 1.5 * 1048576.0)));
        assert_eq!(read("time,rss", "1700000000123,4"), Some((0, 1_700_000_000.123, 4.0)));
    }

    #[test]
    fn a_missing_value_is_no_fault_and_a_word_is_one() {
        let columns = Columns::plain();
        assert_eq!(columns.row("1,"), Ok(None));
        assert_eq!(columns.row("1,NaN"), Ok(None));
        assert_eq!(columns.row("1,much"), Err(()));
        assert_eq!(columns.row("soon,1"), Err(()));
        assert_eq!(columns.row("1"), Err(()));
    }

    #[test]
    fn tools_that_do_not_say_what_they_count() {
        let ps = read("  ELAPSED   RSS    VSZ CMD", "  1-02:03:04 64 9 ./x a,b");
        assert_eq!(ps, Some((0, 93_784.0, 65_536.0)));
        assert_eq!(read("ELAPSED RSS", "03:04 64"), Some((0, 184.0, 65_536.0)));
        let pidstat =
            "# Time        UID       PID  minflt/s  majflt/s     VSZ     RSS   %MEM  Command";
        let row = "1706695200     0      1234      0.00      0.00  300000  64   1.2  myserver";
        assert_eq!(read(pidstat, row), Some((1234, 1_706_695_200.0, 65_536.0)));
        let top = "TIME\tPID\tVIRT\tRES\t%MEM";
        assert_eq!(read(top, "00:00:02\t9\t1.2g\t1.5m\t1.0"), Some((9, 2.0, 1.5 * 1048576.0)));
        let stats = read("time,name,mem_usage", "1,web,1.5MiB / 1.944GiB");
        assert_eq!(stats, Some((0, 1.0, 1.5 * 1048576.0)));
        assert_eq!(read("CMDLINE python x.py", "MEM 1.5 12.25"), Some((0, 12.25, 1.5 * 1048576.0)));
        assert_eq!(read("CMDLINE python x.py", "FUNC f 1.5 12.25 1.5 13.0"), None);
    }

    #[test]
    fn commas_in_numbers_and_times() {
        assert_eq!(read("Zeit;RSS (MB)", "1,5;2,5"), Some((0, 1.5, 2.5 * 1048576.0)));
        assert_eq!(read("time,rss", "\"3\",\"12,345,678\""), Some((0, 3.0, 12_345_678.0)));
        let logged = read("time,rss", "\"1970-01-02 00:00:01,500\",9");
        assert_eq!(logged, Some((0, 86_401.5, 9.0)));
        assert_eq!(read("time|rss", "3|9"), Some((0, 3.0, 9.0)));
    }

    #[test]
    fn clocks_of_twelve_hours() {
        for (text, hours) in
            [("12:30:00 AM", 0.5), ("1:30 AM", 1.5), ("12:30 PM", 12.5), ("11:30 pm", 23.5)]
        {
            assert_eq!(
                read("time,rss", &format!("{text},9")),
                Some((0, hours * 3600.0, 9.0)),
                "{text}"
            );
        }
    }
}
