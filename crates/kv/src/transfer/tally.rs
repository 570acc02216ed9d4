//! What was moved, refused and lost, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::message::Refusal;
use super::options::Transport;
use super::pulling::PullError;

/// The serving side's counters.
#[derive(Debug, Default)]
pub struct ServeCounts {
    refused: [AtomicU64; Refusal::ALL.len()],
    served_bytes: [AtomicU64; Transport::ALL.len()],
    connections: AtomicU64,
}

impl ServeCounts {
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn serve(&self, transport: Transport, bytes: u64) {
        self.served_bytes[transport as usize].fetch_add(bytes, Relaxed);
    }

    pub(super) fn connect(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn disconnect(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Times that we refused for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Relaxed)
    }

    /// Bytes sent, or granted for copying.
    #[must_use]
    pub fn served_bytes(&self, transport: Transport) -> u64 {
        self.served_bytes[transport as usize].load(Relaxed)
    }

    /// Connections now open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// The pulling side's counters.
#[derive(Debug, Default)]
pub struct PullCounts {
    pulls: [AtomicU64; Transport::ALL.len()],
    bytes: [AtomicU64; Transport::ALL.len()],
    failed: [AtomicU64; PullError::LABELS.len()],
}

impl PullCounts {
    pub(super) fn pulled(&self, transport: Transport, bytes: u64) {
        self.pulls[transport as usize].fetch_add(1, Relaxed);
        self.bytes[transport as usize].fetch_add(bytes, Relaxed);
    }

    pub(super) fn fail(&self, error: &PullError) {
        if let Some(at) = PullError::LABELS.iter().position(|label| *label == error.label()) {
            self.failed[at].fetch_add(1, Relaxed);
        }
    }

    /// Pulls that ended well.
    #[must_use]
    pub fn pulls(&self, transport: Transport) -> u64 {
        self.pulls[transport as usize].load(Relaxed)
    }

    /// Bytes that they brought.
    #[must_use]
    pub fn bytes(&self, transport: Transport) -> u64 {
        self.bytes[transport as usize].load(Relaxed)
    }

    /// Pulls that failed, by [`PullError::label`].
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PullError::LABELS.into_iter().zip(self.failed.iter().map(|count| count.load(Relaxed)))
    }
}
