//! `plumb mem`: the ledger of one or more processes, once.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use plumb_ledger::{Depth, Together, cgroup};
use plumb_target::{Error, Process, process, select};

/// Print every resident byte by layer, and what resident memory does not show.
#[derive(Debug, Parser)]
pub struct Args {
    /// A pid, a name pattern (`python*`), a cgroup path (`/…`) or a container id.
    #[arg(required = true, value_name = "PID")]
    targets: Vec<String>,
    /// Show the children of the processes too.
    #[arg(long)]
    tree: bool,
    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Classify only: no walk through heaps, Python's arenas, huge pages and descriptors.
    #[arg(long)]
    quick: bool,
    /// How many seconds each walk may take.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    budget: f64,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let budget = Duration::try_from_secs_f64(args.budget)?;
    let depth = Depth { budget, ..if args.quick { Depth::CLASSIFY } else { Depth::FULL } };
    let mut failed = false;
    let mut named: Vec<Process> = Vec::new();
    for target in &args.targets {
        match select::resolve(target) {
            Ok(found) => {
                named.extend(found.into_iter().filter(|p| !named.contains(p)).collect::<Vec<_>>())
            }
            Err(error) => {
                eprintln!("plumb mem: {error}");
                failed = true;
            }
        }
    }
    let all = if args.tree { process::tree(&named) } else { named.clone() };
    let mut samples = Vec::new();
    for process in &all {
        match plumb_ledger::take(process, depth) {
            Ok(sample) => samples.push(sample),
            // A child that ends meanwhile is no failure: it was not named.
            Err(Error::Vanished { .. } | Error::Zombie { .. }) if !named.contains(process) => {}
            Err(error) => {
                eprintln!("plumb mem: {error}");
                failed = true;
            }
        }
    }
    let groups = cgroup::groups(&samples);
    let together = Together::of(&samples);
    let mut out = io::stdout().lock();
    if args.json {
        let all =
            serde_json::json!({ "processes": samples, "together": together, "cgroups": groups });
        writeln!(out, "{all}")?;
    } else {
        for sample in &samples {
            writeln!(out, "{sample}")?;
        }
        if together.processes > 1 {
            writeln!(out, "together: {} processes, {together}", together.processes)?;
            writeln!(out, "  beyond RSS: {}", together.beyond())?;
        }
        for group in &groups {
            write!(out, "{group}")?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
