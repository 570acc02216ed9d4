//! `plumb hunt`: who holds the growth.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use plumb_hunt::{Launched, Options, Progress, Report, Table, export, show};

/// Find who holds the growth: stacks, mixed Python and native, resident bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A pid, a name pattern (`python*`), a cgroup path (`/…`) or a container id.
    #[arg(value_name = "PID", required_unless_present_any = ["command", "diff"])]
    targets: Vec<String>,
    /// How long to watch, such as 30s or 5m.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = super::duration::parse)]
    time: Duration,
    /// Look at this floor from the start, and at no other dear one.
    #[arg(long, value_enum)]
    floor: Option<Floor>,
    /// Only the processes named, not their children.
    #[arg(long)]
    no_children: bool,
    /// Print the report as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Write the report as one HTML file with a flame graph.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write folded stacks, weighed in bytes.
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Write a profile for pprof.
    #[arg(long, value_name = "FILE")]
    pprof: Option<PathBuf>,
    /// Write a profile for profiler.firefox.com.
    #[arg(long, value_name = "FILE")]
    firefox: Option<PathBuf>,
    /// More known culprits, in the form of Plumb's own table.
    #[arg(long, value_name = "FILE")]
    advice: Option<PathBuf>,
    /// Compare two reports that --json wrote.
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    diff: Option<Vec<PathBuf>>,
    /// A command to start under the hunt, from its first instruction.
    #[arg(last = true, conflicts_with = "targets")]
    command: Vec<String>,
}

/// Mappings are watched on all of them.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Floor {
    /// Syscalls that map, and nothing dearer.
    Mappings,
    /// Who touches pages.
    Faults,
    /// Who calls the allocator.
    Heap,
    /// Which Python objects there are.
    Python,
}

impl From<Floor> for plumb_hunt::Floor {
    fn from(floor: Floor) -> Self {
        match floor {
            Floor::Mappings => Self::Mappings,
            Floor::Faults => Self::Faults,
            Floor::Heap => Self::Heap,
            Floor::Python => Self::Python,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(files) = &args.diff {
        let [a, b] = [read_report(&files[0])?, read_report(&files[1])?];
        print!("{}", export::diff(&a, &b));
        return Ok(ExitCode::SUCCESS);
    }
    let stop = stop_on_signals()?;
    let launched = match args.command.as_slice() {
        [] => None,
        command => Some(Launched::start(command, args.json)?),
    };
    let mut roots = Vec::new();
    for name in &args.targets {
        roots.extend(plumb_target::select::resolve(name)?);
    }
    roots.extend(launched.as_ref().map(Launched::process));
    let user = args.advice.as_deref().map(fs::read_to_string).transpose()?;
    let advice = Table::with(user.as_deref()).context("the table of advice")?;
    let floor = args.floor.map(Into::into);
    let options = Options { roots, children: !args.no_children, time: args.time, floor, advice };
    let go = || {
        if let Some(l) = &launched {
            l.go();
        }
    };
    let report = plumb_hunt::run(&options, &stop, go, tell)?;
    write(&args, &report)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", show::text(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_report(path: &Path) -> anyhow::Result<serde_json::Value> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| format!("{}: not a report", path.display()))
}

/// One line that is rewritten on a terminal, and nothing elsewhere.
fn tell(p: Progress) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // A terminal that went away is no reason to stop.
        let _ok = write!(
            err,
            "\r\x1b[K{}: {:.0} s left, {} events, {} lost, {:.1} % of a core",
            p.floor,
            p.left_s,
            p.events,
            p.lost,
            p.cores * 100.0
        );
        let _ok = if p.left_s < 1.0 { write!(err, "\r\x1b[K") } else { Ok(()) };
    }
}

fn write(args: &Args, report: &Report) -> anyhow::Result<()> {
    let put = |path: &Option<PathBuf>, bytes: &dyn Fn() -> anyhow::Result<Vec<u8>>| match path {
        Some(path) => fs::write(path, bytes()?).with_context(|| path.display().to_string()),
        None => Ok(()),
    };
    put(&args.html, &|| Ok(export::html(report).into_bytes()))?;
    put(&args.folded, &|| Ok(export::folded(report).into_bytes()))?;
    put(&args.pprof, &|| Ok(export::pprof(report)?))?;
    put(&args.firefox, &|| Ok(serde_json::to_vec(&export::firefox(report))?))
}

/// Set by Ctrl-C and SIGTERM, so that the probes come off and the report is still made.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut int, mut term) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        });
        set.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
