//! What strangers can make us hold.

use std::time::Duration;

/// Bounds of one server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. One more takes the place of the one that idles longest; where none idles,
    /// it waits.
    pub max_connections: usize,
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies held at once.
    pub max_buffered_bytes: usize,
    /// Time for a request's head to arrive, and for which a connection may idle between requests.
    pub head_timeout: Duration,
    /// Time for a body to arrive, extended by a second for each 64 KiB that did.
    pub body_timeout: Duration,
    /// Time that requests in flight get to finish once the server is told to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_body_bytes: 16 << 20,
            max_buffered_bytes: 1 << 30,
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
