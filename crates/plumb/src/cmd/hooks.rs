//! `plumb hooks`: who sits between a program and its memory.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use plumb_hooks::{Error, Hooks};
use plumb_target::{Process, select};
use serde_json::{Value, json};

/// Show functions patched in memory, interposed symbols, preloads, and who owns them.
#[derive(Debug, Parser)]
pub struct Args {
    /// A pid, a name pattern (`python*`), a cgroup path (`/…`) or a container id.
    #[arg(required = true, value_name = "PID")]
    targets: Vec<String>,
    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut tell = |error: &Error| {
        eprintln!("plumb hooks: {error}");
        failed = true;
    };
    let mut processes: Vec<Process> = Vec::new();
    for target in &args.targets {
        match select::resolve(target) {
            Ok(found) => processes.extend(found),
            Err(error) => tell(&error),
        }
    }
    let mut seen = Vec::new();
    processes.retain(|process| {
        !seen.contains(process) && {
            seen.push(*process);
            true
        }
    });
    let mut scans: Vec<(Process, Hooks)> = Vec::new();
    for process in processes {
        match plumb_hooks::scan(&process) {
            Ok(hooks) => scans.push((process, hooks)),
            Err(error) => tell(&error),
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        let rows = scans.iter().map(json_of).collect::<Result<Vec<Value>, _>>()?;
        match (args.targets.as_slice(), rows.as_slice()) {
            ([_], [one]) => writeln!(out, "{one}")?,
            _ => writeln!(out, "{}", json!({ "processes": rows }))?,
        }
    } else {
        for (process, hooks) in &scans {
            if scans.len() > 1 {
                writeln!(out, "{} {}", process.pid(), process.name().unwrap_or_default())?;
            }
            write!(out, "{hooks}")?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn json_of((process, hooks): &(Process, Hooks)) -> serde_json::Result<Value> {
    let mut row = serde_json::to_value(hooks)?;
    row["pid"] = process.pid().into();
    Ok(row)
}
