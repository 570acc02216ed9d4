//! What the two sides are told at their start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Identity;

/// A way for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// One copy out of the peer's mapped pool.
    Shm,
    /// Over the side channel.
    Tcp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Shm, Self::Tcp];

    /// The name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
        }
    }
}

/// Which ways may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transports {
    /// Shared memory where the peer is on this host and lets us, else TCP.
    #[default]
    Auto,
    /// Shared memory, or the pull fails.
    Shm,
    /// TCP, and nobody is handed the pool's descriptor.
    Tcp,
}

/// Where a peer's side channel listens, written as in `kv_transfer_params`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// `remote_host`: a name or an address.
    pub host: String,
    /// `remote_port`.
    pub port: u16,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no HOST:PORT of a peer, such as 127.0.0.1:9101");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// How long anything may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// To read or write one message, once it has begun; a data frame has as long.
    pub message: Duration,
    /// A peer that has not introduced itself.
    pub hello: Duration,
    /// A connection on which nobody asks for anything; blocks are pinned for a copy no longer.
    pub idle: Duration,
    /// A whole pull, from its turn to its last byte.
    pub pull: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            message: Duration::from_secs(5),
            hello: Duration::from_secs(2),
            idle: Duration::from_secs(60),
            pull: Duration::from_secs(20),
        }
    }
}

/// The serving side.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where the side channel listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Changes with every start of the instance.
    pub engine_id: String,
    /// What a peer must have in common with us.
    pub identity: Identity,
    /// Addresses that may connect.
    pub allow: Vec<IpAddr>,
    /// [`Transports::Tcp`] hands nobody the pool's descriptor.
    pub transports: Transports,
    /// Connections at a time, each with a thread of its own.
    pub max_connections: usize,
    /// Bounds.
    pub timeouts: Timeouts,
}

impl ServerOptions {
    /// Serves peers of this host.
    #[must_use]
    pub fn new(bind: SocketAddr, engine_id: String, identity: Identity) -> Self {
        Self {
            bind,
            engine_id,
            identity,
            allow: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            transports: Transports::Auto,
            max_connections: 64,
            timeouts: Timeouts::default(),
        }
    }
}

/// The pulling side.
#[derive(Clone, Debug)]
pub struct PullerOptions {
    /// What a peer must have in common with us.
    pub identity: Identity,
    /// The only peers that are ever contacted.
    pub peers: Vec<PeerAddress>,
    /// The ways that may be taken.
    pub transports: Transports,
    /// Compare a checksum (XXH3-64) of every pull's bytes; either transport.
    pub checksum: bool,
    /// Time between the signs of life for claims that wait.
    pub heartbeat: Duration,
    /// Bounds.
    pub timeouts: Timeouts,
}

impl PullerOptions {
    /// Pulls from `peers` by the best way there is, a heartbeat every 5 s as vLLM's.
    #[must_use]
    pub fn new(identity: Identity, peers: Vec<PeerAddress>) -> Self {
        Self {
            identity,
            peers,
            transports: Transports::Auto,
            checksum: false,
            heartbeat: Duration::from_secs(5),
            timeouts: Timeouts::default(),
        }
    }
}
