//! `plumb hunt`: who holds the growth.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plumb_hunt::Options;

/// Find who holds the growth: stacks, mixed Python and native, resident bytes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pid, name pattern, cgroup or container id
    #[arg(required = true)]
    target: Vec<String>,
    /// How long to watch, such as 30s or 5m
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = super::duration::parse)]
    time: Duration,
    /// Only the processes named, not their children
    #[arg(long)]
    no_children: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut roots = Vec::new();
    for name in &args.target {
        roots.extend(plumb_target::select::resolve(name)?);
    }
    let options = Options { roots, children: !args.no_children, time: args.time };
    let stop = stop_on_signals()?;
    let report = plumb_hunt::run(
        &options,
        &stop,
        || {},
        |p| {
            eprintln!("{:.0} s left, {} events, {} lost", p.left_s, p.events, p.lost);
        },
    )?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(ExitCode::SUCCESS)
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
