//! A watch on a terminal: a sparkline a layer, its rate, the verdict.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::io;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode};
use plumb_ledger::verdict::Kind;
use plumb_ledger::watch::{Change, LayerLine, Line, Summary, Watcher};
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Stylize};
use ratatui::text::Line as Text;
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, Wrap};

use super::size;

/// How many looks are kept for a sparkline: a wide terminal's.
const WIDTH: usize = 200;
/// Rows of a verdict at most, however narrow the terminal.
const MOST_ROWS: u16 = 8;
/// Columns of a table with shapes and sparklines, of one without either, and below which it is so.
const TABLE: u16 = 57;
const NARROW_TABLE: u16 = 44;
const NARROW: u16 = 72;
/// Layers that are smaller and do not grow are left out.
const WORTH_A_ROW: u64 = 256 << 10;

/// The whole terminal, given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    past: BTreeMap<(u32, String), VecDeque<u64>>,
}

impl Screen {
    /// Takes the terminal.
    pub fn open() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()?, past: BTreeMap::new() })
    }

    /// Draws one look; true when the user asked to end.
    pub fn draw(&mut self, watcher: &Watcher) -> io::Result<bool> {
        let mut lines: Vec<&Line> = watcher.latest().collect();
        // What needs a person first, then what is largest.
        lines.sort_by_key(|line| std::cmp::Reverse((line.severity(), line.rss_bytes)));
        self.past.retain(|(pid, _), _| lines.iter().any(|line| line.pid == *pid));
        for line in &lines {
            for layer in &line.layers {
                let past = self.past.entry((line.pid, layer.layer.clone())).or_default();
                past.push_back(layer.resident_bytes);
                if past.len() > WIDTH {
                    past.pop_front();
                }
            }
        }
        let past = &self.past;
        self.terminal.draw(|frame| draw(frame, &lines, past, watcher.cost()))?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                let interrupt = key.modifiers.contains(event::KeyModifiers::CONTROL)
                    && key.code == KeyCode::Char('c');
                if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

type Past = BTreeMap<(u32, String), VecDeque<u64>>;

fn draw(frame: &mut Frame<'_>, lines: &[&Line], past: &Past, cost: f64) {
    let narrow = frame.area().width < NARROW;
    let columns = if narrow { NARROW_TABLE } else { TABLE };
    let width = frame.area().width;
    let verdict_rows = |line: &Line| wrapped(&sentence(&line.verdict), width).min(MOST_ROWS);
    let height = |line: &&Line| rows(line).count() as u16 + verdict_rows(line) + 2;
    let room = frame.area().height.saturating_sub(1);
    let mut used = 0;
    // The first is shown in any case, as far as it fits.
    let fit = lines.iter().take_while(|line| {
        used += height(line);
        used <= room || used == height(line)
    });
    let shown = &lines[..fit.count()];
    let heights = shown.iter().map(|line| Constraint::Length(height(line)));
    let areas = Layout::vertical(heights.chain([Constraint::Min(1)])).split(frame.area());
    for (&line, &area) in shown.iter().zip(areas.iter()) {
        let parts = [Constraint::Length(1), Constraint::Length(verdict_rows(line))];
        let [head, verdict_area, body] =
            Layout::vertical(parts.into_iter().chain([Constraint::Min(0)])).areas(area);
        frame.render_widget(Text::from(headline(line)).bold(), head);
        let verdict = Paragraph::new(sentence(&line.verdict))
            .wrap(Wrap { trim: true })
            .fg(colour(line.verdict.leak));
        frame.render_widget(verdict, verdict_area);
        let [table, sparks] =
            Layout::horizontal([Constraint::Length(columns), Constraint::Min(0)]).areas(body);
        let widths = [18, 11, 13, 10].map(Constraint::Length);
        let widths = &widths[..if narrow { 3 } else { 4 }];
        frame.render_widget(Table::new(rows(line).map(row), widths), table);
        if narrow {
            continue;
        }
        for (index, layer) in rows(line).enumerate() {
            let y = sparks.y + index as u16;
            if y < sparks.bottom() {
                let values = past.get(&(line.pid, layer.layer.clone()));
                let skip = values.map_or(0, |v| v.len().saturating_sub(sparks.width.into()));
                let values: Vec<u64> = values.into_iter().flatten().skip(skip).copied().collect();
                let low = values.iter().min().copied().unwrap_or(0);
                let values = values.into_iter().map(|v| v - low);
                let area = ratatui::layout::Rect { y, height: 1, ..sparks };
                frame.render_widget(Sparkline::default().data(values), area);
            }
        }
    }
    if let Some(&foot) = areas.last() {
        let more = match lines.len() - shown.len() {
            0 => String::new(),
            more => format!("{more} more processes; "),
        };
        let text = format!("{more}looking costs {:.2} % of one core; q ends", cost * 100.0);
        frame.render_widget(Text::from(text).dim(), foot);
    }
}

/// How many rows a text takes, wrapped between words.
fn wrapped(text: &str, width: u16) -> u16 {
    let width = usize::from(width).max(1);
    let (mut rows, mut used) = (1, 0);
    for word in text.split(' ').map(str::len) {
        let apart = usize::from(used > 0);
        if used + apart + word <= width {
            used += apart + word;
        } else {
            // A word that is longer than a row is cut.
            rows += usize::from(used > 0) + (word.max(1) - 1) / width;
            used = (word.max(1) - 1) % width + 1;
        }
    }
    rows.try_into().unwrap_or(u16::MAX)
}

fn rows(line: &Line) -> impl Iterator<Item = &LayerLine> {
    let shown = |l: &&LayerLine| l.resident_bytes >= WORTH_A_ROW || l.leak == Some(true);
    line.layers.iter().filter(shown)
}

fn row(layer: &LayerLine) -> Row<'static> {
    let cells = [
        Cell::from(layer.layer.clone()),
        Cell::from(format!("{:>10}", size::bytes(layer.resident_bytes as f64))),
        Cell::from(format!("{:>12}", rate(layer.bytes_per_s))),
        Cell::from(word(layer.kind)),
    ];
    Row::new(cells).fg(colour(layer.leak))
}

fn colour(leak: Option<bool>) -> Color {
    match leak {
        Some(true) => Color::Red,
        None => Color::Yellow,
        Some(false) => Color::Reset,
    }
}

fn rate(bytes_per_s: Option<f64>) -> String {
    match bytes_per_s {
        Some(rate) if rate.abs() >= 1.0 => format!("{}/s", size::bytes(rate)),
        _ => "-".into(),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Flat => "flat",
        Kind::WarmingUp => "warming up",
        Kind::Sawtooth => "sawtooth",
        Kind::Step => "step",
        Kind::Growing => "growing",
        Kind::Undecided => "undecided",
    }
}

fn who(line: &Line) -> String {
    match line.processes {
        Some(processes) => format!("{processes} processes together"),
        None => process(line.pid, &line.name),
    }
}

fn process(pid: u32, name: &str) -> String {
    match name {
        "" => format!("process {pid}"),
        // A program may call itself anything, control characters among it.
        name => format!("process {pid} ({})", name.escape_default()),
    }
}

/// Who joined a watch, or ended.
pub fn change(change: &Change, now: f64) -> String {
    let what = if change.ended { "has ended" } else { "joins the watch" };
    format!("after {}, {}: it {what}", size::time(now), process(change.pid, &change.name))
}

fn headline(line: &Line) -> String {
    let rss = size::bytes(line.rss_bytes as f64);
    let ended = if line.ended { ", when it ended" } else { "" };
    format!("{}: {rss} resident after {}{ended}", who(line), size::time(line.time_s))
}

fn sentence(verdict: &Summary) -> String {
    let judgement = match verdict.leak {
        Some(true) => "LEAK",
        Some(false) => "no leak",
        None => "cannot tell yet",
    };
    let mut text = format!("{judgement}: ");
    if let Some(layer) = &verdict.layer {
        let _infallible = write!(text, "{layer} ");
    }
    let _infallible = write!(text, "{}", word(verdict.kind));
    if let (Some(bytes), Some([low, high])) = (verdict.bytes_per_s, verdict.interval)
        && verdict.kind != Kind::Flat
    {
        let [bytes, low, high] = [bytes, low, high].map(size::bytes);
        let _infallible = write!(text, " {bytes}/s ({low} to {high})");
    }
    if let (Some(oom), Some(limit)) = (verdict.oom_in_s, &verdict.limit) {
        let _infallible = write!(text, ", {limit} full in {}", size::time(oom));
    }
    let _infallible = write!(text, "; {}", verdict.why);
    text
}

/// One process in one line: when, who, what.
pub fn judgement(line: &Line) -> String {
    let time = size::time(line.time_s);
    format!("after {time}, {}: {}", who(line), sentence(&line.verdict))
}

/// One process as plain text: the final word of a watch, and all of it where there is no terminal.
pub fn text(line: &Line) -> String {
    let mut text = format!("{}\n{}\n", headline(line), sentence(&line.verdict));
    for layer in rows(line) {
        let _infallible = writeln!(
            text,
            "  {:<17} {:>10} {:>13}  {}",
            layer.layer,
            size::bytes(layer.resident_bytes as f64),
            rate(layer.bytes_per_s),
            word(layer.kind)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const LINE: &str = r#"{"time_s":75.0,"pid":4242,"rss_bytes":301000000,"layers":[
        {"layer":"code","resident_bytes":8300000,"bytes_per_s":0.0,"kind":"flat","leak":false},
        {"layer":"heap_in_use","resident_bytes":270000000,"bytes_per_s":993000.0,"kind":"growing","leak":true},
        {"layer":"heap_retained","resident_bytes":1200000,"bytes_per_s":1000.0,"kind":"warming_up","leak":false}],
        "verdict":{"kind":"growing","leak":true,"layer":"heap_in_use","bytes_per_s":993000.0,
        "interval":[988000.0,998000.0],"oom_in_s":18000.0,"limit":"cgroup /sys/fs/cgroup/memory/a-long-name/of-a-service",
        "window_s":74.0,"why":"its floor rose through all of the last 74 s, undiminished"}}"#;

    fn drawn(width: u16, height: u16, processes: u32) -> String {
        let line: Line = serde_json::from_str(LINE).expect("a line");
        let lines: Vec<Line> =
            (0..processes).map(|n| Line { pid: 4242 + n, ..line.clone() }).collect();
        let lines: Vec<&Line> = lines.iter().collect();
        let mut past = Past::new();
        past.insert((4242, "heap_in_use".into()), (0..90).collect());
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &lines, &past, 0.0094)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(width.into());
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn the_whole_verdict_is_read_on_a_narrow_terminal() {
        for width in [40, 60, 72, 80, 120] {
            let screen = drawn(width, 24, 1);
            assert!(screen.contains("process 4242: 287 MiB resident"), "{screen}");
            let text = screen.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains("undiminished code 7.9 MiB"), "{width}: {screen}");
            assert!(text.contains("heap_in_use 257 MiB 970 KiB/s"), "{width}: {screen}");
            assert!(screen.contains("looking costs 0.94 % of one core"), "{screen}");
        }
    }

    #[test]
    fn processes_that_do_not_fit_are_counted() {
        let screen = drawn(80, 24, 200);
        assert!(screen.contains("process 4243") && !screen.contains("process 4260"), "{screen}");
        let shown = screen.matches("LEAK: ").count();
        assert!(screen.contains(&format!("{} more processes; ", 200 - shown)), "{screen}");
    }

    #[test]
    fn no_terminal_is_too_small() {
        for (width, height) in [(1, 1), (3, 30), (200, 1), (10, 4)] {
            drawn(width, height, 3);
        }
    }
}
