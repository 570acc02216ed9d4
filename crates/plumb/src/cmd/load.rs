//! `plumb load`: traffic against any server of OpenAI's API.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use plumb_load::{Arrivals, Bound, Options, Progress, Report, Slo, Traffic, html, run as send};

/// Send production-like traffic to any OpenAI server: TTFT, ITL, TPOT, goodput.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server.
    #[arg(default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The model's name; by default the first that the server lists.
    #[arg(long)]
    model: Option<String>,
    /// Requests a second, at random moments, whatever the server does.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "clients")]
    rate: Option<f64>,
    /// Clients that each ask again as soon as they are answered.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Requests in all.
    #[arg(long, default_value_t = 100, conflicts_with = "time")]
    requests: usize,
    /// Send requests for so long, such as 30s or 5m.
    #[arg(long = "for", value_name = "TIME", value_parser = super::duration::parse)]
    time: Option<Duration>,
    /// Median words of a prompt.
    #[arg(long, default_value_t = 128, value_name = "WORDS")]
    prompt: usize,
    /// Words that all prompts begin with.
    #[arg(long, default_value_t = 0, value_name = "WORDS")]
    shared: usize,
    /// Median of the tokens asked for.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    output: usize,
    /// How far lengths scatter: standard deviation of their logarithm.
    #[arg(long, default_value_t = 0.5)]
    spread: f64,
    /// The same seed sends the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A good answer's first text comes within this time.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::duration::parse)]
    slo_ttft: Duration,
    /// A good answer's further tokens take this time each.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = super::duration::parse)]
    slo_tpot: Duration,
    /// Write the report as one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the report as JSON on standard output.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|e| e.to_string())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("must be above zero".into()) }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        url: args.url,
        model: args.model,
        key: std::env::var("OPENAI_API_KEY").ok(),
        traffic: Traffic {
            arrivals: args.rate.map_or(Arrivals::Closed(args.clients.into()), Arrivals::Open),
            bound: args.time.map_or(Bound::Requests(args.requests), Bound::Time),
            prompt_words: args.prompt,
            shared_words: args.shared,
            output_tokens: args.output,
            spread: args.spread,
            seed: args.seed,
        },
    };
    let slo = Slo { ttft_s: args.slo_ttft.as_secs_f64(), tpot_s: args.slo_tpot.as_secs_f64() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(send(&options, tell))?;
    clear();
    let report = Report::of(&answers, slo);
    if let Some(path) = &args.html {
        std::fs::write(path, html(&report, &answers))
            .with_context(|| path.display().to_string())?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    let all_failed = report.requests > 0 && report.completed == 0;
    Ok(if all_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One line that is rewritten on a terminal, and nothing elsewhere.
fn tell(p: Progress) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // A terminal that went away is no reason to stop.
        let _ok = write!(
            err,
            "\r\x1b[K{:.0} s: {} answered, {} failed, {} in flight",
            p.seconds,
            p.ended - p.failed,
            p.failed,
            p.in_flight
        );
    }
}

fn clear() {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ok = write!(err, "\r\x1b[K");
    }
}
