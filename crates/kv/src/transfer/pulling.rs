//! A pull under way: what its owner holds of it, and how it ends.

use std::future::Future;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::message::Refusal;
use super::options::{PeerAddress, Transport};
use crate::{Block, Mismatch};

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The blocks given to [`super::Claim::pull`], filled.
    pub blocks: Vec<Block>,
    /// Bytes moved.
    pub bytes: u64,
    /// The way they came.
    pub transport: Transport,
    /// From the pull's turn to its last byte.
    pub took: Duration,
    /// False if layers with a window left out blocks that no query of this sequence will read. Such
    /// blocks serve this sequence only: they can be neither published nor leased.
    pub whole: bool,
}

/// Why a pull failed. Its blocks are back in the pool by then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The peer is not among those that we were given.
    #[error("{0} is no peer of this instance; name it with --kv-peer to allow pulls from it")]
    NotAllowed(PeerAddress),
    /// Nobody answers there.
    #[error("KV side channel {peer} cannot be reached: {source}; is the prefill instance up?")]
    Unreachable {
        /// Whom we called.
        peer: PeerAddress,
        /// What happened.
        source: std::io::Error,
    },
    /// The peer said no.
    #[error("{peer} refused ({}): {message}", refusal.label())]
    Refused {
        /// Who.
        peer: PeerAddress,
        /// Why, in a word.
        refusal: Refusal,
        /// Why, in full.
        message: String,
    },
    /// The peer serves something else.
    #[error("{peer}: {mismatch}")]
    Identity {
        /// Who.
        peer: PeerAddress,
        /// What.
        mismatch: Mismatch,
    },
    /// Another engine answers than the one that granted the lease.
    #[error("{peer} is now engine {found}, the lease is of engine {wanted}: it was restarted")]
    StaleEngine {
        /// Who.
        peer: PeerAddress,
        /// The lease's.
        wanted: String,
        /// The one there.
        found: String,
    },
    /// The peer does not keep to the protocol.
    #[error("{peer} breaks the protocol: {what}")]
    Protocol {
        /// Who.
        peer: PeerAddress,
        /// How.
        what: String,
    },
    /// The connection broke.
    #[error("connection to {peer} lost: {what}")]
    Lost {
        /// Who.
        peer: PeerAddress,
        /// How.
        what: String,
    },
    /// It took too long.
    #[error("{peer} was too slow")]
    Timeout {
        /// Who.
        peer: PeerAddress,
    },
    /// The bytes are not those that were sent.
    #[error("{peer}: checksum {found:016x}, announced {announced:016x}")]
    Checksum {
        /// Who.
        peer: PeerAddress,
        /// Of the bytes that we have.
        found: u64,
        /// Of the bytes that the peer has.
        announced: u64,
    },
    /// The bytes were no longer kept for us when the copy was done.
    #[error("{peer} did not keep the blocks until they were copied")]
    Unpinned {
        /// Who.
        peer: PeerAddress,
    },
    /// Shared memory was asked for and cannot be had.
    #[error("{peer} does not share memory with us: {why}; use --kv-transport auto or tcp")]
    NoSharedMemory {
        /// Who.
        peer: PeerAddress,
        /// Why.
        why: String,
    },
    /// It was dropped.
    #[error("the pull was cancelled")]
    Cancelled,
    /// The puller is gone.
    #[error("the instance is shutting down")]
    Stopped,
}

impl PullError {
    /// All that [`label`](Self::label) answers.
    pub const LABELS: [&'static str; 18] = [
        "not_allowed",
        "unreachable",
        "identity",
        "stale_engine",
        "protocol",
        "lost",
        "timeout",
        "checksum",
        "unpinned",
        "no_shared_memory",
        "cancelled",
        "stopped",
        "unknown_lease",
        "ended_lease",
        "foreign_host",
        "malformed",
        "out_of_range",
        "busy",
    ];

    /// Whether the peer itself said no, at once and by the protocol.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Identity { .. } | Self::StaleEngine { .. })
    }

    /// The name in metrics; for a refusal, the refusal's.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "not_allowed",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { refusal, .. } => refusal.label(),
            Self::Identity { .. } => "identity",
            Self::StaleEngine { .. } => "stale_engine",
            Self::Protocol { .. } => "protocol",
            Self::Lost { .. } => "lost",
            Self::Timeout { .. } => "timeout",
            Self::Checksum { .. } => "checksum",
            Self::Unpinned { .. } => "unpinned",
            Self::NoSharedMemory { .. } => "no_shared_memory",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
        }
    }
}

/// A pull under way: await it, or [`wait`](Self::wait) for it. Dropping it cancels the pull; the
/// peer is told that nobody wants the blocks.
#[derive(Debug)]
#[must_use = "a pull that is dropped is cancelled"]
pub struct Pulling(pub(super) Arc<Progress>);

/// What a pull's owner and the thread that works on it share.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
enum State {
    /// In the queue; cancelling returns the blocks at once.
    Waiting {
        into: Vec<Block>,
        waker: Option<Waker>,
    },
    /// The thread has the blocks; cancelling interrupts its socket.
    Running {
        socket: Option<TcpStream>,
        waker: Option<Waker>,
    },
    Cancelled,
    Ended(Box<Result<Pulled, PullError>>),
    /// The result was taken.
    Over,
}

impl Progress {
    pub(super) fn new(into: Vec<Block>) -> Arc<Self> {
        let state = Mutex::new(State::Waiting { into, waker: None });
        Arc::new(Self { state, ended: Condvar::new() })
    }

    /// The pull's turn has come. `None` if it was cancelled.
    pub(super) fn start(&self) -> Option<Vec<Block>> {
        let mut state = self.state.lock();
        let State::Waiting { into, waker } = &mut *state else { return None };
        let (into, waker) = (std::mem::take(into), waker.take());
        *state = State::Running { socket: None, waker };
        Some(into)
    }

    /// Names the socket whose shutdown interrupts the pull.
    pub(super) fn watch(&self, socket: &TcpStream) -> std::io::Result<()> {
        let clone = socket.try_clone()?;
        if let State::Running { socket, .. } = &mut *self.state.lock() {
            *socket = Some(clone);
        }
        Ok(())
    }

    /// Nobody waits for it any more.
    pub(super) fn cancelled(&self) -> bool {
        !matches!(*self.state.lock(), State::Waiting { .. } | State::Running { .. })
    }

    /// Ends it from outside, whatever it is doing.
    pub(super) fn interrupt(&self, error: PullError) {
        if let State::Running { socket: Some(socket), .. } = &*self.state.lock() {
            socket.shutdown(Shutdown::Both).ok();
        }
        self.end(Err(error));
    }

    pub(super) fn end(&self, result: Result<Pulled, PullError>) {
        let mut state = self.state.lock();
        let waker = match &mut *state {
            State::Waiting { waker, .. } | State::Running { waker, .. } => waker.take(),
            // Nobody waits: the blocks go back with the result.
            State::Cancelled | State::Ended(_) | State::Over => return,
        };
        let before = std::mem::replace(&mut *state, State::Ended(Box::new(result)));
        drop(state);
        drop(before);
        self.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn cancel(&self) {
        let mut state = self.state.lock();
        if let State::Running { socket: Some(socket), .. } = &*state {
            socket.shutdown(Shutdown::Both).ok();
        }
        let next = match *state {
            State::Waiting { .. } | State::Running { .. } => State::Cancelled,
            State::Cancelled | State::Ended(_) | State::Over => State::Over,
        };
        let before = std::mem::replace(&mut *state, next);
        drop(state);
        drop(before);
    }

    fn take(&self, state: &mut State) -> Option<Result<Pulled, PullError>> {
        if !matches!(state, State::Ended(_)) {
            return None;
        }
        match std::mem::replace(state, State::Over) {
            State::Ended(result) => Some(*result),
            _ => None,
        }
    }
}

impl Pulling {
    /// Blocks the thread until the pull has ended.
    ///
    /// # Errors
    /// [`PullError`]; the blocks are back in the pool then.
    pub fn wait(self) -> Result<Pulled, PullError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(result) = self.0.take(&mut state) {
                return result;
            }
            self.0.ended.wait(&mut state);
        }
    }
}

impl Future for Pulling {
    type Output = Result<Pulled, PullError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if let Some(result) = self.0.take(&mut state) {
            return Poll::Ready(result);
        }
        if let State::Waiting { waker, .. } | State::Running { waker, .. } = &mut *state {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
