//! Everything that can go wrong, said so that a person knows what to change.

use crate::kernels::matmul::{IsaError, PackError};
use plumb_gguf::TensorInfo;

/// Why a model could not be loaded, an engine built, or a step run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a readable GGUF file.
    #[error("cannot read the model file: {0}")]
    File(#[from] plumb_gguf::Error),
    /// A family of models that this engine has no plan for.
    #[error("the engine has no plan for architecture {found:?}; it knows {known}")]
    Architecture {
        /// `general.architecture` of the file.
        found: String,
        /// The architectures with a plan.
        known: &'static str,
    },
    /// A metadata key whose value cannot be used.
    #[error("metadata key {key}: {why}")]
    Metadata {
        /// The full key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A tensor that the plan needs is not in the file.
    #[error("the file has no tensor {name:?}, which architecture {arch} needs")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// The architecture that needs it.
        arch: &'static str,
    },
    /// A tensor is there with another shape than the metadata says.
    #[error("tensor {name:?} has shape {found:?}; the metadata asks for {expected:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// What the file has, fastest dimension first.
        found: Vec<u64>,
        /// What the metadata implies, fastest dimension first.
        expected: Vec<u64>,
    },
    /// A tensor that changes the result and that no plan uses.
    #[error(
        "the file has tensor {name:?}, which no plan here uses: its model would answer wrongly"
    )]
    UnusedTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that the kernels cannot multiply by.
    #[error("tensor {name:?}: {source}")]
    Matrix {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        source: PackError,
    },
    /// The kernels wished for cannot run here.
    #[error(transparent)]
    Kernels(#[from] IsaError),
    /// The options contradict the model or one another.
    #[error("engine options: {0}")]
    Options(String),
    /// A batch that cannot be run. Nothing was computed, no KV block was written.
    #[error("batch refused: {0}")]
    Batch(#[from] BatchError),
    /// Memory could not be had.
    #[error(transparent)]
    Memory(plumb_region::Error),
    /// Threads or files could not be had.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn matrix(tensor: &TensorInfo, source: PackError) -> Self {
        Self::Matrix { name: tensor.name.clone(), source }
    }

    pub(crate) fn system(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// Why a batch was refused, before anything was computed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// More tokens than `max_batch_tokens`.
    #[error("{got} tokens, the engine was built for {max}")]
    Tokens {
        /// Tokens in the batch.
        got: usize,
        /// `EngineOptions::max_batch_tokens`.
        max: usize,
    },
    /// More slices than `max_seqs`.
    #[error("{got} sequences, the engine was built for {max}")]
    Sequences {
        /// Slices in the batch.
        got: usize,
        /// `EngineOptions::max_seqs`.
        max: usize,
    },
    /// More rows of logits than `max_logit_rows`.
    #[error("{got} rows of logits, the engine was built for {max}")]
    LogitRows {
        /// Rows asked for.
        got: usize,
        /// `EngineOptions::max_logit_rows`.
        max: usize,
    },
    /// A slice without tokens.
    #[error("slice {slice} has no tokens")]
    Empty {
        /// Index in the batch.
        slice: usize,
    },
    /// A slice that ends beyond `max_context`.
    #[error("slice {slice} ends at position {end}, the context is {max}")]
    Context {
        /// Index in the batch.
        slice: usize,
        /// One past its last position.
        end: usize,
        /// `EngineOptions::max_context`.
        max: usize,
    },
    /// A block table too short for the slice's positions.
    #[error("slice {slice} needs {need} blocks and has {have}")]
    Blocks {
        /// Index in the batch.
        slice: usize,
        /// Blocks up to its last position.
        need: usize,
        /// Length of its table.
        have: usize,
    },
    /// A block id that the pool does not have.
    #[error("slice {slice} names block {block}, the pool has {blocks}")]
    UnknownBlock {
        /// Index in the batch.
        slice: usize,
        /// The id.
        block: u32,
        /// Blocks in the pool.
        blocks: usize,
    },
    /// A token id outside the vocabulary.
    #[error("slice {slice} has token {token}, the vocabulary has {vocab}")]
    Token {
        /// Index in the batch.
        slice: usize,
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The pool was made for another model or block size.
    #[error("the pool's blocks have {have} bytes, this model needs {need}")]
    Pool {
        /// Bytes of one of the pool's blocks.
        have: usize,
        /// Bytes that this engine's blocks have.
        need: usize,
    },
}
