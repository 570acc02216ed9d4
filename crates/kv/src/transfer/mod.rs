//! Blocks from one process's pool to another's.
//!
//! The puller opens a TCP connection to the serving side (the *side channel*), both compare who they
//! are, and then the puller asks for the blocks of leases, one request at a time. A block's bytes
//! come over that connection, or, on one host, out of the server's pool itself: its descriptor is
//! handed over a unix socket once, stays mapped for reading, and a pull is one copy.
//!
//! # Who may read what
//! Over TCP a peer gets the blocks of a lease that it can name, and nothing else. Whoever holds the
//! pool's descriptor can read the **whole pool** until the process ends: that is the price of a pull
//! that costs one copy. So it is handed only to a peer that connects from an allowed address, has the
//! same user id as we do (told by the kernel), and shows on the unix socket a ticket that it got on
//! its TCP connection, after the handshake. Such a process could read our memory through
//! `/proc/PID/mem` anyway. Where that is too much, run the instance with `--kv-transport tcp`.
//! The side channel is neither encrypted nor authenticated beyond the lease's name: across hosts it
//! belongs on a network of its own.
//!
//! # What a pull leaves behind
//! Nothing, however it ends. The puller's blocks return when the pull is dropped; the server's stay
//! pinned only while the connection that asked for them lives and for a bounded time; the puller
//! learns after copying from shared memory whether they still were.

mod connection;
mod frame;
mod message;
mod options;
mod peer;
mod plan;
mod puller;
mod pulling;
mod serve;
mod server;
mod shared;
mod tally;
mod wire;

pub use frame::fuzz_frames;
pub use message::Refusal;
pub use options::{PeerAddress, PullerOptions, ServerOptions, Timeouts, Transport, Transports};
pub use puller::{Claim, Puller, Remote};
pub use pulling::{PullError, Pulled, Pulling};
pub use server::{Server, ServerError};
pub use tally::{PullCounts, ServeCounts};
