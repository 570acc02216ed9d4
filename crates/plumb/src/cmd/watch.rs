//! `plumb watch`: the ledger over time, and a verdict on what grows.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use plumb_ledger::watch::{History, Line, Options, Replay, Watcher, cpu};
use plumb_target::{Process, select};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::view::output::{Fault, Output};
use crate::view::{changes::Changes, page, watch as view};

/// Watch processes grow: rate, verdict and time to out-of-memory, a layer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A pid, a name pattern (`python*`), a cgroup path (`/…`) or a container id.
    #[arg(value_name = "PID", required_unless_present_any = ["command", "replay"])]
    targets: Vec<String>,
    /// How long to watch: `90`, `90s`, `10m`, `2h`. Without it, until interrupted.
    #[arg(long = "for", value_name = "TIME", value_parser = super::duration::parse)]
    time: Option<Duration>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    every: f64,
    /// End with 3 for a leak, and with 4 where it could not be told.
    #[arg(long)]
    fail_on_leak: bool,
    /// Watch the processes named alone.
    #[arg(long)]
    no_children: bool,
    /// How much of one core looking may cost, in percent.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    budget: f64,
    /// One JSON object a line on standard output.
    #[arg(long)]
    json: bool,
    /// Write every look to this file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Judge a record, or another tool's CSV of time and bytes, instead of a process.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["targets", "command", "record"])]
    replay: Option<PathBuf>,
    /// Serve the latest look as OpenMetrics at this address.
    #[arg(long, value_name = "ADDR")]
    prometheus: Option<std::net::SocketAddr>,
    /// Run this command and watch it until it ends.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

const LEAK: u8 = 3;
const CANNOT_TELL: u8 = 4;

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.replay {
        return replay(&args, file);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live(args))
}

fn replay(args: &Args, file: &Path) -> anyhow::Result<ExitCode> {
    let input = File::open(file).with_context(|| file.display().to_string())?;
    let mut print = |line: &Line| {
        // A reader that went away is found at the last line.
        let _closed = as_json(std::slice::from_ref(line)).map(|text| io::stdout().write_all(&text));
    };
    let look: Option<&mut dyn FnMut(&Line)> = if args.json { Some(&mut print) } else { None };
    let lines =
        Replay::read(BufReader::new(input), look).with_context(|| file.display().to_string())?;
    match args.json {
        true => io::stdout().write_all(&as_json(&lines)?)?,
        false => print_text(&lines)?,
    }
    Ok(status(args, &lines, None))
}

async fn live(args: Args) -> anyhow::Result<ExitCode> {
    let mut child = start(&args)?;
    let pid = child.as_ref().and_then(Child::id);
    let mut roots = Vec::new();
    for target in &args.targets {
        roots.extend(select::resolve(target)?);
    }
    if let Some(child) = &child {
        // One that has ended already is told of at the end.
        roots.extend(child.id().and_then(|pid| Process::open(pid).ok()));
    }
    let options = Options {
        children: !args.no_children,
        budget: (args.budget / 100.0).max(1e-4),
        ..Options::default()
    };
    let mut outputs = Outputs::open(&args)?;
    let page = match args.prometheus {
        Some(address) => Some(page::serve(address).await?),
        None => None,
    };
    let patterns = args.targets.iter().filter(|target| target.parse::<u32>().is_err());
    let mut watcher = Watcher::new(roots, options).following(patterns.cloned().collect());
    // What it took to come so far.
    watcher.charge(cpu());
    let mut screen = (!args.json && io::stdout().is_terminal() && args.command.is_empty())
        .then(view::Screen::open)
        .transpose()?;

    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let end = args.time.map(|time| Instant::now() + time);
    let mut ticks = interval(Duration::try_from_secs_f64(args.every.max(0.05))?);
    // After a look that took long, the next is a whole interval later: points crowd nowhere.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = None;
    let mut changes = Changes::default();
    loop {
        tokio::select! {
            biased;
            _ = int.recv() => break,
            _ = term.recv() => break,
            status = wait(&mut child) => { ended = Some(status?); break }
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break,
            _ = ticks.tick() => {
                let mut lines = match watcher.look() {
                    Ok(lines) => lines,
                    // A command may end before it was ever seen.
                    Err(_) if child.is_some() => Vec::new(),
                    Err(error) => return Err(error.into()),
                };
                lines.extend(watcher.together(false));
                let begun = cpu();
                outputs.write(&lines)?;
                if screen.is_none() {
                    watcher.troubles().iter().for_each(|error| eprintln!("plumb watch: {error}"));
                    let now = watcher.elapsed();
                    watcher.changes().iter().for_each(|change| eprintln!("{}", view::change(change, now)));
                    if !args.json { changes.tell(&lines, |pid| watcher.watches(pid)); }
                }
                if let Some(page) = &page { page.update(watcher.latest(), watcher.cost()); }
                if let Some(screen) = &mut screen && screen.draw(&watcher)? { break }
                watcher.charge(cpu() - begun);
                if watcher.is_over() && child.is_none() { break }
            }
        }
    }
    drop(screen);
    watcher.troubles().iter().for_each(|error| eprintln!("plumb watch: {error}"));
    let mut lines = watcher.finish().unwrap_or_default();
    watcher.beside(&mut lines);
    if let Some(pid) = pid.filter(|_| lines.is_empty()) {
        lines.push(History::new(pid).line(|| None, true));
    }
    if !args.json {
        print_text(&lines)?;
    }
    let written = outputs.finish(&lines)?;
    eprintln!("plumb watch: looking cost {:.2} % of one core", watcher.cost() * 100.0);
    if let (None, Some(child)) = (&ended, &mut child) {
        stop(child, &watcher).await?;
    }
    let status = status(&args, &lines, ended);
    // A leak that was found is worth more than a record that was not made.
    Ok(if written || status == ExitCode::from(LEAK) { status } else { ExitCode::FAILURE })
}

/// Who gets the lines of a watch: neither keeps it from looking.
struct Outputs {
    json: Option<Output>,
    record: Option<Output>,
    /// Whether all lines so far have arrived.
    whole: bool,
}

impl Outputs {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let json = args.json.then(|| Output::new("standard output", io::stdout()));
        let record = args.record.as_ref().map(|path| {
            let name = format!("the record {}", path.display());
            let file = File::create(path).with_context(|| format!("cannot create {name}"))?;
            anyhow::Ok(Output::new(name, file))
        });
        Ok(Self { json, record: record.transpose()?, whole: true })
    }

    fn write(&mut self, lines: &[Line]) -> anyhow::Result<()> {
        if self.json.is_none() && self.record.is_none() {
            return Ok(());
        }
        let text = as_json(lines)?;
        if let Some(json) = &mut self.json {
            json.send(&text)?;
        }
        if let Some(Err(fault)) = self.record.as_mut().map(|record| record.send(&text)) {
            self.say(&fault);
            self.record = None;
        }
        Ok(())
    }

    /// Writes the last lines; whether all lines have arrived.
    fn finish(mut self, lines: &[Line]) -> anyhow::Result<bool> {
        let text = as_json(lines)?;
        for output in [self.record.take(), self.json.take()].into_iter().flatten() {
            if let Err(fault) = output.finish(&text) {
                self.say(&fault);
            }
        }
        Ok(self.whole)
    }

    fn say(&mut self, fault: &Fault) {
        self.whole = false;
        eprintln!("plumb watch: {fault}");
    }
}

fn start(args: &Args) -> anyhow::Result<Option<Child>> {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    if args.json {
        // Standard output holds only the JSON.
        command.stdout(Stdio::from(io::stderr()));
    }
    Ok(Some(command.spawn().with_context(|| program.clone())?))
}

/// How long a command has to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends a command that the watch outlived, and what it started: a shell that is killed alone would
/// leave its programs behind.
async fn stop(child: &mut Child, watcher: &Watcher) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    for process in watcher.alive() {
        let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw);
        // It may end before it is asked to.
        let _gone = pid.map(|pid| kill_process(pid, Signal::TERM));
    }
    if timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

async fn wait(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

fn as_json(lines: &[Line]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn print_text(lines: &[Line]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // What all hold together is news where it is a leak.
    let mut lines = lines.iter().filter(|l| l.processes.is_none() || l.verdict.leak == Some(true));
    lines.try_for_each(|line| write!(out, "{}", view::text(line)))
}

fn status(args: &Args, lines: &[Line], ended: Option<ExitStatus>) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let worst = lines.iter().map(Line::severity).max();
    // As a shell says it: a signal is 128 and its number.
    let own =
        ended.map_or(0, |status| status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1));
    let code = match (args.fail_on_leak, worst, own) {
        (true, Some(2), _) => LEAK,
        (_, _, own) if own != 0 => u8::try_from(own).unwrap_or(1),
        (true, Some(1) | None, _) => CANNOT_TELL,
        _ => 0,
    };
    ExitCode::from(code)
}
