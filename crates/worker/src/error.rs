//! Why an instance could not start or go on.

use std::path::PathBuf;

/// Why an instance could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's file.
    #[error("cannot serve {path}: {source}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: plumb_engine::Error,
    },
    /// Its tokenizer or chat template.
    #[error("cannot read the text side of {path}: {source}", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: plumb_text::Error,
    },
    /// The file as such.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: plumb_gguf::Error,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] plumb_engine::Error),
    /// The KV pool.
    #[error("the KV pool cannot be had: {0}; ask for fewer --kv-blocks")]
    Pool(#[from] plumb_kv::Error),
    /// The KV side channel.
    #[error(transparent)]
    SideChannel(#[from] plumb_kv::transfer::ServerError),
    /// Flags that cannot be.
    #[error("{0}")]
    Options(String),
    /// Sockets and threads.
    #[error("{what}: {source}")]
    System {
        /// What failed.
        what: String,
        /// How.
        source: std::io::Error,
    },
    /// The engine's thread ended while requests could still come.
    #[error("the engine's thread ended unexpectedly; see the log above")]
    EngineDied,
}
