//! What can go wrong, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the stack could not be started or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The router's port is in use.
    #[error("port {0} is taken: stop what listens there, or choose another with --port")]
    PortTaken(u16),
    /// No free port, or no right to listen.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The machine has less memory free than the stack will use.
    #[error(
        "memory is short: {instances} instances of this model need about {need_mib} MiB and \
         {free_mib} MiB are available ({limit}); use a smaller model or fewer instances"
    )]
    Memory {
        /// How many instances were asked for.
        instances: u16,
        /// Estimated need, in MiB.
        need_mib: u64,
        /// Available, in MiB.
        free_mib: u64,
        /// What limits it.
        limit: String,
    },
    /// The model file is missing or no readable GGUF.
    #[error("cannot read the model {path}: {reason}")]
    Model {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The model could not be fetched.
    #[error("cannot fetch the model: {0}")]
    Fetch(String),
    /// What was given as a model is neither a path nor `hf:owner/repo/file.gguf`.
    #[error("{0:?} names no model: give a path to a GGUF file, or hf:owner/repo/file.gguf")]
    ModelName(String),
    /// A part could not be started at all.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// The part.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A part died again and again before it was ever ready.
    #[error("{name} ended with {status} {times} times before it was ready; its log is above")]
    NeverReady {
        /// The part.
        name: String,
        /// How it ended last.
        status: String,
        /// How often.
        times: u32,
    },
    /// The example question got no answer.
    #[error("the example question was not answered: {0}")]
    Example(String),
    /// The example was answered, but not by both legs.
    #[error("the answer did not come through both legs: x-plumb-route was {0:?}")]
    NotDisaggregated(String),
    /// Ctrl-C or SIGTERM before the example was answered.
    #[error("interrupted")]
    Interrupted,
    /// Anything the operating system refused.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}
