//! What an instance is told at its start.

use std::path::PathBuf;

use plumb_engine::KvType;
use plumb_kv::transfer::{PeerAddress, Transports};
use plumb_ledger::watch::Limit;

use crate::driver::LoadFailure;
use crate::error::Error;

/// What an instance is for. Every instance can answer every request; the role names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Computes prompts for others.
    Prefill,
    /// Decodes what others computed.
    Decode,
    /// Does all of it.
    #[default]
    Both,
}

impl Role {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Both => "both",
        }
    }
}

/// What an instance is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// A GGUF file.
    pub model: PathBuf,
    /// The name that requests give; `None`: the file's name without its ending.
    pub model_name: Option<String>,
    /// What it is for.
    pub role: Role,
    /// Where HTTP listens.
    pub host: String,
    /// Its port; 0 takes a free one.
    pub port: u16,
    /// Where the KV side channel listens, and the host that peers are told.
    pub kv_host: String,
    /// Its port; 0 takes a free one.
    pub kv_port: u16,
    /// Which ways KV may take.
    pub kv_transport: Transports,
    /// The only instances that KV is pulled from; their hosts may also pull from us.
    pub kv_peers: Vec<PeerAddress>,
    /// Blocks in the pool; `None`: as many as [`DEFAULT_KV_BYTES`] hold, and at least one context.
    pub kv_blocks: Option<usize>,
    /// How KV is kept: prefill and decode instances must agree.
    pub kv_type: KvType,
    /// What happens when a pull fails.
    pub kv_load_failure: LoadFailure,
    /// Seconds that blocks wait for a peer without a sign of life.
    pub kv_lease_seconds: u64,
    /// Threads that compute; `None`: one a CPU.
    pub threads: Option<usize>,
    /// The CPU of each; empty: the system's choice.
    pub cpus: Vec<usize>,
    /// Sequences that run at once.
    pub max_seqs: usize,
    /// Answers that wait for a place beyond that; more get a 503.
    pub max_waiting: usize,
    /// Tokens of a step: also what a client that leaves may have to wait for.
    pub max_batch_tokens: usize,
    /// Prompt tokens of a step in which others decode.
    pub max_prompt_tokens_beside_decodes: usize,
    /// Whether the engine's plan is logged at the start.
    pub explain_plan: bool,
    /// Whether each operation is timed, and the times are logged at the end.
    pub profile: bool,
    /// Whether plan and times are written to standard output as JSON, a line each, instead.
    pub json: bool,
    /// Prompt and answer together; `None`: the model's, at most [`DEFAULT_CONTEXT`].
    pub context: Option<usize>,
}

/// Memory for the pool where no number of blocks is given.
pub const DEFAULT_KV_BYTES: usize = 512 << 20;
/// The longest context where none is given.
pub const DEFAULT_CONTEXT: usize = 8192;
/// Tokens of a block, vLLM's number.
pub const BLOCK_TOKENS: usize = 16;

impl WorkerOptions {
    /// An instance of `model` on free ports of loopback.
    #[must_use]
    pub fn new(model: PathBuf) -> Self {
        Self {
            model,
            model_name: None,
            role: Role::Both,
            host: "127.0.0.1".into(),
            port: 0,
            kv_host: "127.0.0.1".into(),
            kv_port: 0,
            kv_transport: Transports::Auto,
            kv_peers: Vec::new(),
            kv_blocks: None,
            kv_type: KvType::Int16,
            kv_load_failure: LoadFailure::Recompute,
            kv_lease_seconds: 30,
            threads: None,
            cpus: Vec::new(),
            max_seqs: 32,
            max_waiting: 1024,
            max_batch_tokens: 128,
            max_prompt_tokens_beside_decodes: 64,
            explain_plan: false,
            profile: false,
            json: false,
            context: None,
        }
    }

    /// The name that requests give.
    #[must_use]
    pub fn served_name(&self) -> String {
        let stem = || self.model.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.model_name.clone().or_else(stem).unwrap_or_else(|| "model".into())
    }

    /// Context and blocks for a model of `trained` positions whose blocks have `block_bytes`.
    ///
    /// # Errors
    /// If the flags contradict the model or one another.
    pub fn sizes(&self, trained: usize, block_bytes: usize) -> Result<(usize, usize), Error> {
        if self.context.is_some_and(|context| context > trained || context < 2) {
            let message = format!("--context must be 2 to the model's {trained} tokens");
            return Err(Error::Options(message));
        }
        let wanted = self.context.unwrap_or_else(|| trained.min(DEFAULT_CONTEXT));
        let needed = wanted.div_ceil(BLOCK_TOKENS);
        let affordable = DEFAULT_KV_BYTES / block_bytes.max(1);
        let most_useful = needed.saturating_mul(self.max_seqs);
        let blocks = self.kv_blocks.unwrap_or_else(|| affordable.min(most_useful).max(needed));
        if blocks >= needed {
            return Ok((wanted, blocks));
        }
        if self.context.is_some() || blocks == 0 {
            let message = format!(
                "--kv-blocks {blocks} hold {} tokens, fewer than --context {wanted}: ask for at \
                 least {needed} blocks, or a shorter context",
                blocks * BLOCK_TOKENS
            );
            return Err(Error::Options(message));
        }
        Ok((blocks * BLOCK_TOKENS, blocks))
    }

    /// The pool is taken whole at the start: what cannot be had would end this process, or another.
    ///
    /// # Errors
    /// With the numbers, if `limit` leaves less.
    pub fn check_pool(
        blocks: usize,
        block_bytes: usize,
        limit: Option<Limit>,
    ) -> Result<(), Error> {
        let need = (blocks as u64).saturating_mul(block_bytes as u64);
        match limit {
            Some(limit) if limit.headroom_bytes < need => Err(Error::Options(format!(
                "memory is short: {blocks} KV blocks need {} MiB and {} MiB are available ({}); ask \
                 for fewer with --kv-blocks",
                need >> 20,
                limit.headroom_bytes >> 20,
                limit.name
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> WorkerOptions {
        WorkerOptions::new("m.gguf".into())
    }

    #[test]
    fn a_context_always_fits_the_pool() {
        let block_bytes = 368_640;
        let (context, blocks) = options().sizes(8192, block_bytes).unwrap();
        assert_eq!(context, 8192);
        assert_eq!(blocks, DEFAULT_KV_BYTES / block_bytes);
        let few = WorkerOptions { kv_blocks: Some(10), ..options() };
        assert_eq!(few.sizes(8192, block_bytes).unwrap(), (160, 10));
        let both = WorkerOptions { context: Some(200), ..few };
        assert!(both.sizes(8192, block_bytes).unwrap_err().to_string().contains("13 blocks"));
    }

    #[test]
    fn what_the_machine_has_not_is_refused_with_the_numbers() {
        let limit = |bytes| Some(Limit { name: "machine".into(), headroom_bytes: bytes });
        assert!(WorkerOptions::check_pool(100, 1 << 20, limit(100 << 20)).is_ok());
        assert!(WorkerOptions::check_pool(100, 1 << 20, None).is_ok());
        let short = WorkerOptions::check_pool(101, 1 << 20, limit(100 << 20)).unwrap_err();
        assert!(short.to_string().contains("101 MiB and 100 MiB are available (machine)"));
        assert!(WorkerOptions::check_pool(usize::MAX, 1 << 20, limit(1)).is_err());
    }

    #[test]
    fn a_big_model_still_gets_one_context() {
        let (context, blocks) = options().sizes(4096, 16 << 20).unwrap();
        assert_eq!((context, blocks), (4096, 256));
    }

    #[test]
    fn a_model_is_named_after_its_file() {
        assert_eq!(WorkerOptions::new("/a/Smol.Q4_1.gguf".into()).served_name(), "Smol.Q4_1");
    }
}
