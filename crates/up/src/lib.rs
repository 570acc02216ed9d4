//! `plumb up`: the whole of serving on one machine, in the foreground, as `docker compose up` does.
//!
//! Knows how to fetch a model, which processes make a stack, and how to keep them running. Must
//! never know what the parts compute: it starts them as programs and talks to them over HTTP, as
//! any user would.
//!
//! The way of a start: [`model`] turns what the user named into a file; [`plan`] decides ports,
//! processor cores and arguments, and refuses what cannot work before anything starts; [`part`]
//! runs one process and prefixes its log; [`supervise`] restarts what dies; [`example`] asks one
//! question through the router; [`report`] says where it went and what it took.
//!
//! A part ends with us, also when we are killed: it is started with `PLUMB_PARENT` set, and
//! [`follow_parent`] asks the kernel to end it when its parent is gone.
#![forbid(unsafe_code)]

mod error;
mod example;
pub mod model;
mod parent;
mod part;
mod plan;
mod report;
mod supervise;

use std::io::IsTerminal;
use std::path::PathBuf;

pub use error::Error;
pub use parent::follow_parent;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the model comes from.
    pub model: model::Source,
    /// The router's port.
    pub port: u16,
    /// How many prefill instances.
    pub prefill: u16,
    /// How many decode instances.
    pub decode: u16,
    /// Ask the example question, report, and stop.
    pub once: bool,
    /// Report as JSON on standard output.
    pub json: bool,
    /// The `plumb` binary that the parts run.
    pub program: PathBuf,
}

/// Runs the stack until it is interrupted, or, with `once`, until the example is answered.
///
/// Must be called from a runtime that lives on the process's main thread: the kernel ends children
/// with the thread that started them.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut interrupt = supervise::Interrupt::new()?;
    let file = tokio::select! {
        file = model::resolve(&options.model) => file?,
        () = interrupt.wait() => return Ok(()),
    };
    let plan = plan::Plan::new(&options, &file)?;
    let colour = std::io::stderr().is_terminal();
    eprintln!("model    {}", file.display());
    let stack = supervise::Stack::start(&plan, colour)?;
    let outcome = tokio::select! {
        outcome = serve(&options, &plan, &stack, &mut interrupt) => outcome,
        error = stack.failed() => Err(error),
    };
    stack.stop().await;
    outcome
}

async fn serve(
    options: &Options,
    plan: &plan::Plan,
    stack: &supervise::Stack,
    interrupt: &mut supervise::Interrupt,
) -> Result<(), Error> {
    let outcome = tokio::select! {
        outcome = example::ask(plan, !options.json) => outcome,
        () = interrupt.wait() => return if options.once { Err(Error::Interrupted) } else { Ok(()) },
    };
    match outcome {
        Ok(outcome) => {
            stack.ready();
            let report = report::Report::new(outcome, &stack.pids());
            report.print(options.json);
            if options.once {
                return report.check();
            }
        }
        Err(error) if options.once => return Err(error),
        Err(error) => eprintln!("plumb: {error}"),
    }
    report::where_to_look(plan);
    interrupt.wait().await;
    Ok(())
}
