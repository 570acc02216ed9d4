//! `plumb up`: router, prefill and decode instances on this machine.

use std::process::ExitCode;

use plumb_up::{Options, model::Source};

/// Start a router, prefill and decode instances on this machine, and ask an example question.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, or hf:owner/repo/file.gguf; without it, SmolLM2-135M-Instruct is fetched once.
    model: Option<String>,
    /// Where the router listens.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// How many prefill instances.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    prefill: u16,
    /// How many decode instances.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    decode: u16,
    /// Ask one example question, print what happened, and exit.
    #[arg(long)]
    once: bool,
    /// With --once: print the outcome as JSON on standard output, all else on standard error.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        model: args.model.as_deref().map_or(Ok(Source::Default), str::parse)?,
        port: args.port,
        prefill: args.prefill,
        decode: args.decode,
        once: args.once,
        json: args.json,
        program: std::env::current_exe()?,
    };
    // The kernel ends a child with the thread that started it, so all of this stays on main's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(plumb_up::run(options));
    // A model that is still being fetched is not waited for.
    runtime.shutdown_background();
    ended?;
    Ok(ExitCode::SUCCESS)
}
