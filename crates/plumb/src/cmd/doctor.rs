//! `plumb doctor`: what works here, and what to do about what does not.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use crate::doctor::{self, Check, State};

/// Tell what works on this machine and for this user, and what to do about what does not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Be the process that another doctor looks at.
    #[arg(long, hide = true)]
    still: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.still {
        doctor::stand_still()?;
        return Ok(ExitCode::SUCCESS);
    }
    let checks = doctor::examine().context("no child could be started to look at")?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "checks": checks }))?;
    } else {
        out.write_all(text(&checks).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        text += &format!("{state:<8} {:<22} {}\n", check.name, check.found);
        if let Some(advice) = &check.advice {
            text += &format!("{:<31} for {}: {advice}\n", "", check.needed_for);
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    text + &format!(
        "{} ok, {} limited, {} missing\n",
        count(State::Ok),
        count(State::Limited),
        count(State::Missing)
    )
}
