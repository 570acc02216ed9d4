//! What can keep a hunt from its report.

/// A hunt that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Tracing failed.
    #[error(transparent)]
    Trace(#[from] plumb_trace::Error),
    /// A target could not be read.
    #[error(transparent)]
    Target(#[from] plumb_target::Error),
    /// Every process ended before the ledger saw it.
    #[error("the target ended before anything could be seen of its memory")]
    NothingSeen,
    /// The command could not be started.
    #[error("the command could not be started: {0}")]
    Start(std::io::Error),
}
