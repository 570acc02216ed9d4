//! What the two sides say to each other: JSON in control frames.

use serde::{Deserialize, Serialize};

use super::options::Transport;
use crate::{Identity, NoLease};

/// Version of frames, messages and the order of bytes in a pull.
pub(super) const WIRE_VERSION: u32 = 1;

/// From the puller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Ask {
    /// The first word: whom I mean, and who I am.
    Hello { wire_version: u32, engine_id: String, identity: Identity, block_bytes: u64 },
    /// Hand me the pool.
    Map,
    /// Blocks `first..first + count` of a lease.
    Pull { request_id: String, first: u32, count: u32, transport: Transport, checksum: bool },
    /// I have, or do not want, the blocks of this lease.
    Release { request_id: String },
    /// I still want the blocks of these.
    Heartbeat { request_ids: Vec<String> },
}

/// From the server, one for every [`Ask`]; data frames and a [`Answer::Sum`] follow a grant by TCP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// Who I am; `host` names the machine's boot.
    Welcome { engine_id: String, identity: Identity, block_bytes: u64, host: String },
    /// Show this ticket on this unix socket (in the abstract name space).
    Socket { name: String, ticket: String, bytes: u64 },
    /// `bytes` will follow by TCP, or wait in these blocks of the pool.
    Granted { bytes: u64, blocks: Vec<u32>, sum: Option<u64> },
    /// After the data: its checksum, if it was asked for.
    Sum { sum: Option<u64> },
    /// `pinned`: the blocks granted for copying on this connection stayed untouched until now.
    Released { pinned: bool },
    /// Which of them are not live.
    Alive { gone: Vec<String> },
    /// No, and why.
    Refused { refusal: Refusal, message: String },
}

/// Why the serving side said no; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No such lease was ever granted: a guess.
    UnknownLease,
    /// The lease was released or has expired: a replay, or too late.
    EndedLease,
    /// The peer's address is not allowed.
    ForeignHost,
    /// Not our protocol, or out of its bounds.
    Malformed,
    /// Another model, or other settings.
    Identity,
    /// The peer means an instance that was here before us.
    StaleEngine,
    /// Blocks that the lease does not have.
    OutOfRange,
    /// Too many connections.
    Busy,
    /// The pool's descriptor was asked for by another user, without a ticket, or where it is not
    /// handed out.
    NoSharedMemory,
    /// The peer was silent or slow for too long.
    Timeout,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::UnknownLease,
        Self::EndedLease,
        Self::ForeignHost,
        Self::Malformed,
        Self::Identity,
        Self::StaleEngine,
        Self::OutOfRange,
        Self::Busy,
        Self::NoSharedMemory,
        Self::Timeout,
    ];

    /// The name in metrics and messages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownLease => "unknown_lease",
            Self::EndedLease => "ended_lease",
            Self::ForeignHost => "foreign_host",
            Self::Malformed => "malformed",
            Self::Identity => "identity",
            Self::StaleEngine => "stale_engine",
            Self::OutOfRange => "out_of_range",
            Self::Busy => "busy",
            Self::NoSharedMemory => "no_shared_memory",
            Self::Timeout => "timeout",
        }
    }
}

impl From<NoLease> for Refusal {
    fn from(no: NoLease) -> Self {
        match no {
            NoLease::Unknown => Self::UnknownLease,
            NoLease::Ended => Self::EndedLease,
        }
    }
}
