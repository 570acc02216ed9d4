//! `plumb router`: the front door alone.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Uri;
use plumb_router::{Observed, PolicyName, Settings, WhenPrefillFails};
use tokio::signal::unix::{SignalKind, signal};

/// Serve OpenAI's API in front of prefill and decode instances.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on [default: 8000].
    #[arg(long)]
    port: Option<u16>,
    /// Prefill instances, as http://HOST:PORT.
    #[arg(long, value_name = "URL", num_args = 1..)]
    prefill: Option<Vec<String>>,
    /// Decode instances, as http://HOST:PORT.
    #[arg(long, value_name = "URL", num_args = 1..)]
    decode: Option<Vec<String>>,
    /// How an instance is chosen [default: least-loaded].
    #[arg(long)]
    policy: Option<Policy>,
    /// What follows when no prefill instance can take a prompt [default: recompute].
    #[arg(long)]
    when_prefill_fails: Option<PrefillFails>,
    /// Requests served at once [default: 4096].
    #[arg(long)]
    max_in_flight: Option<usize>,
    /// Requests that may wait for a place [default: 4096].
    #[arg(long)]
    max_queued: Option<usize>,
    /// Seconds that requests in flight get to finish after SIGTERM [default: 30].
    #[arg(long)]
    drain_timeout: Option<f64>,
    /// A TOML file with these settings and more; flags go before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Once it listens, print where, as JSON on standard output; the log is on standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Policy {
    RoundRobin,
    LeastLoaded,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PrefillFails {
    Recompute,
    Fail,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let json = args.json;
    let options = settings(args).over(file).options()?;
    crate::log::start();
    let observed = Observed { memory_bytes: Box::new(memory_by_layer) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told_to_stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let listener = plumb_http::bind(&options.host, options.port).await?;
        if json {
            let url = |uri: &Uri| uri.to_string().trim_end_matches('/').to_owned();
            let urls = |uris: &[Uri]| uris.iter().map(url).collect::<Vec<_>>();
            crate::log::listening(&serde_json::json!({
                "role": "router", "url": format!("http://{}", listener.local_addr()?),
                "prefill": urls(&options.prefill), "decode": urls(&options.decode),
                "pid": std::process::id(),
            }));
        }
        plumb_router::serve(listener, options, observed, told_to_stop).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn settings(args: Args) -> Settings {
    Settings {
        host: args.host,
        port: args.port,
        prefill: args.prefill,
        decode: args.decode,
        policy: args.policy.map(|policy| match policy {
            Policy::RoundRobin => PolicyName::RoundRobin,
            Policy::LeastLoaded => PolicyName::LeastLoaded,
        }),
        when_prefill_fails: args.when_prefill_fails.map(|what| match what {
            PrefillFails::Recompute => WhenPrefillFails::Recompute,
            PrefillFails::Fail => WhenPrefillFails::Fail,
        }),
        max_in_flight: args.max_in_flight,
        max_queued: args.max_queued,
        drain_timeout: args.drain_timeout,
        ..Settings::default()
    }
}

/// This process's own ledger, for its metrics page.
fn memory_by_layer() -> Vec<(String, u64)> {
    plumb_ledger::own()
}
