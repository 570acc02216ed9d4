//! The subcommands, each in a file of its own: flags in, a call into the crate that does the work,
//! an exit status out.

mod doctor;
mod duration;
mod hooks;
mod hunt;
mod load;
mod mem;
mod router;
mod up;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::Subcommand;

/// Exit status: 0 done, 1 failed, 2 usage (by clap); a subcommand may define more.
#[derive(Debug, Subcommand)]
pub enum Command {
    Mem(mem::Args),
    Watch(watch::Args),
    Doctor(doctor::Args),
    Router(router::Args),
    Up(up::Args),
    Hooks(hooks::Args),
    Hunt(hunt::Args),
    Load(load::Args),
    Worker(worker::Args),
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Mem(args) => mem::run(args),
            Self::Router(args) => router::run(args),
            Self::Watch(args) => watch::run(args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Up(args) => up::run(args),
            Self::Hooks(args) => hooks::run(args),
            Self::Hunt(args) => hunt::run(args),
            Self::Load(args) => load::run(args),
            Self::Worker(args) => worker::run(args),
        }
    }
}
