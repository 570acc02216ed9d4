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
            eprintln!("plumb: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: many say their cause themselves.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| match cause.to_string() {
        cause if said.is_empty() => cause,
        cause if said.contains(&cause) => said,
        cause => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("gone").context("cannot read x: gone").context("no model");
        assert_eq!(super::in_words(&error), "no model: cannot read x: gone");
        assert_eq!(super::in_words(&anyhow!("b").context("a")), "a: b");
    }
}
