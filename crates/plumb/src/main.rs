//! The command line: one file a subcommand, no logic of its own.
#![forbid(unsafe_code)]

mod cmd;
mod doctor;
mod log;
mod view;

use std::process::ExitCode;

use clap::Parser;

/// Disaggregated LLM serving, and an account of every resident byte.
#[derive(Debug, Parser)]
#[command(name = "plumb", version, max_term_width = 100)]
struct Plumb {
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    if !plumb_up::follow_parent() {
        return ExitCode::FAILURE;
    }
    match Plumb::parse().command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("plumb: {error:#}");
            ExitCode::FAILURE
        }
    }
}
