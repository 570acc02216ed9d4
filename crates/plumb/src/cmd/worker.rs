//! `plumb worker`: one instance.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumb_kv::transfer::{PeerAddress, Transports};
use plumb_worker::{KvType, LoadFailure, Role, Worker, WorkerOptions};

/// Serve one instance: the OpenAI API over a model, prefill, decode or both.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// The name that requests give; without it, the file's name without its ending.
    #[arg(long)]
    model_name: Option<String>,
    /// What the instance is for; each can answer every request.
    #[arg(long, default_value = "both")]
    role: RoleArg,
    /// Where HTTP listens.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Its port; 0 takes a free one.
    #[arg(long, default_value_t = 8001)]
    port: u16,
    /// Where the KV side channel listens; also the host that peers are told.
    #[arg(long, default_value = "127.0.0.1")]
    kv_host: String,
    /// Its port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    kv_port: u16,
    /// The way of KV between instances: auto is shared memory on one host, else TCP.
    #[arg(long, default_value = "auto")]
    kv_transport: TransportArg,
    /// HOST:PORT of the side channels that KV may be pulled from; their hosts may also pull from here.
    #[arg(long, num_args = 1.., value_name = "HOST:PORT")]
    kv_peer: Vec<PeerAddress>,
    /// KV blocks of 16 tokens; without it, as many as 512 MiB hold, and at least one context.
    #[arg(long)]
    kv_blocks: Option<usize>,
    /// How KV is kept: int16, or int8 in half the room. Prefill and decode instances must agree.
    #[arg(long, default_value = "int16")]
    kv_type: KvTypeArg,
    /// When a pull fails: compute the prompt here, or answer with an error.
    #[arg(long, default_value = "recompute")]
    kv_load_failure: FailureArg,
    /// Seconds that blocks wait for a peer without a sign of life.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    kv_lease: u64,
    /// Threads that compute; without it, one for each of --cpus, or of the machine's.
    #[arg(long)]
    threads: Option<usize>,
    /// The CPUs to compute on, such as 0,1. All else that the instance does keeps off them where it can.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Sequences that run at once.
    #[arg(long, default_value_t = 32)]
    max_seqs: usize,
    /// Answers that may wait for a place beyond that; more get a 503.
    #[arg(long, default_value_t = 1024)]
    max_waiting: usize,
    /// Tokens that one step computes at most; a request is given up between steps.
    #[arg(long, default_value_t = 128)]
    max_batch_tokens: usize,
    /// Prompt tokens of a step beside running decodes: what bounds the time between their tokens.
    #[arg(long, default_value_t = 64)]
    max_prompt_tokens_beside_decodes: usize,
    /// Log the engine's plan: every operation, buffer and weight.
    #[arg(long)]
    explain_plan: bool,
    /// Time every operation of the engine, and log the times against the core's limits at the end.
    #[arg(long)]
    profile: bool,
    /// Prompt and answer together, in tokens; without it the model's, at most 8192.
    #[arg(long)]
    context: Option<usize>,
    /// JSON on standard output, an object a line: once it listens, where; and plan and times, if asked
    /// for. The log is on standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    Prefill,
    Decode,
    Both,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TransportArg {
    Auto,
    Shm,
    Tcp,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KvTypeArg {
    Int16,
    Int8,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FailureArg {
    Recompute,
    Fail,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::log::start();
    plumb_worker::leave_to_engine(&args.cpus)?;
    // Beside the engine's own threads: HTTP, tokenizing, the text of answers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        let (role, json) = (args.role, args.json);
        let worker = Worker::start(args.into(), Some(Box::new(memory_layers))).await?;
        if json {
            crate::log::listening(&serde_json::json!({
                "role": Role::from(role).name(), "model": worker.model_name(),
                "url": format!("http://{}", worker.address()?),
                "kv": worker.kv_address().to_string(), "pid": std::process::id(),
            }));
        }
        worker.serve(shutdown).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// When bytes by layer were taken, and they.
type Taken = (Instant, Vec<(String, u64)>);

/// The ledger of a second ago is good enough: whoever asks often must not slow down the answers.
fn memory_layers() -> Vec<(String, u64)> {
    static LAST: Mutex<Option<Taken>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((taken, layers)) if taken.elapsed() < Duration::from_secs(1) => layers.clone(),
        _ => last.insert((Instant::now(), take_memory_layers())).1.clone(),
    }
}

/// This process's own ledger, by the same code that looks at others.
fn take_memory_layers() -> Vec<(String, u64)> {
    plumb_ledger::own()
}

impl From<RoleArg> for Role {
    fn from(arg: RoleArg) -> Self {
        match arg {
            RoleArg::Prefill => Self::Prefill,
            RoleArg::Decode => Self::Decode,
            RoleArg::Both => Self::Both,
        }
    }
}

impl From<Args> for WorkerOptions {
    fn from(args: Args) -> Self {
        Self {
            model: args.model,
            model_name: args.model_name,
            role: args.role.into(),
            host: args.host,
            port: args.port,
            kv_host: args.kv_host,
            kv_port: args.kv_port,
            kv_transport: match args.kv_transport {
                TransportArg::Auto => Transports::Auto,
                TransportArg::Shm => Transports::Shm,
                TransportArg::Tcp => Transports::Tcp,
            },
            kv_peers: args.kv_peer,
            kv_blocks: args.kv_blocks,
            kv_type: match args.kv_type {
                KvTypeArg::Int16 => KvType::Int16,
                KvTypeArg::Int8 => KvType::Int8,
            },
            kv_load_failure: match args.kv_load_failure {
                FailureArg::Recompute => LoadFailure::Recompute,
                FailureArg::Fail => LoadFailure::Fail,
            },
            kv_lease_seconds: args.kv_lease,
            threads: args.threads,
            cpus: args.cpus,
            max_seqs: args.max_seqs,
            max_waiting: args.max_waiting,
            max_batch_tokens: args.max_batch_tokens,
            max_prompt_tokens_beside_decodes: args.max_prompt_tokens_beside_decodes,
            explain_plan: args.explain_plan,
            profile: args.profile,
            json: args.json,
            context: args.context,
        }
    }
}
