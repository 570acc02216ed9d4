//! The serving side: listens, admits, keeps the number of connections bounded.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::frame;
use super::message::{Answer, Refusal};
use super::options::ServerOptions;
use super::serve::{Host, serve};
use super::shared;
use super::tally::ServeCounts;
use crate::{Leases, Pool};

const BACKLOG: i32 = 1024;

/// What kept the serving side from starting.
#[derive(Debug, thiserror::Error)]
#[error("KV side channel on {address}: {step}: {source}; is the port taken?")]
pub struct ServerError {
    address: SocketAddr,
    step: &'static str,
    source: io::Error,
}

/// Serves the blocks under leases to peers, and ends leases whose time is over. Dropping it closes
/// every connection.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    host: Host,
    stop: OwnedFd,
    stopping: AtomicBool,
    open: Mutex<Open>,
    one_closed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// In the order in which they came.
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    welcomed: Arc<AtomicBool>,
}

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`ServerError`] where the address cannot be had.
    pub fn start(
        pool: Arc<Pool>,
        leases: Arc<Leases>,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        let bind = options.bind;
        let failed = |step| move |source| ServerError { address: bind, step, source };
        let listener = TcpListener::bind(bind).map_err(failed("bind"))?;
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        // With std's 128, a crowd makes a peer's connect wait a second for its next SYN.
        rustix::net::listen(&listener, BACKLOG).map_err(|e| failed("listen")(e.into()))?;
        let address = listener.local_addr().map_err(failed("listen"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| failed("eventfd")(e.into()))?;
        let counts = ServeCounts::default();
        let shared = Arc::new(Shared {
            host: Host { pool, leases, options, boot: shared::host(), counts },
            stop,
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            one_closed: Condvar::new(),
        });
        let listening = std::thread::Builder::new()
            .name("kv-listen".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.listen(&listener)
            })
            .map_err(failed("thread"))?;
        Ok(Self { shared, address, listening: Some(listening) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &ServeCounts {
        &self.shared.host.counts
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes()).ok();
        if let Some(listening) = self.listening.take() {
            listening.join().ok();
        }
        let mut open = self.shared.open.lock();
        for connection in open.connections.values() {
            connection.stream.shutdown(Shutdown::Both).ok();
        }
        while !open.connections.is_empty() {
            self.shared.one_closed.wait(&mut open);
        }
    }
}

impl Shared {
    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        while !self.stopping.load(Relaxed) {
            let mut fds =
                [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            if poll(&mut fds, Some(&self.until_next_end())).is_ok() && !fds[1].revents().is_empty()
            {
                self.accept(listener);
            }
            self.host.leases.expire(Instant::now());
        }
    }

    /// A lease granted after we went to sleep lasts a whole TTL: no need to be woken for it.
    fn until_next_end(&self) -> Timespec {
        let ttl = self.host.leases.ttl();
        let left = self.host.leases.next_end().map_or(ttl, |end| {
            end.saturating_duration_since(Instant::now()).min(ttl) + Duration::from_millis(1)
        });
        Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        match listener.accept() {
            Ok((stream, from)) => self.admit(stream, from.ip().to_canonical()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "KV side channel: accept; waiting a moment");
                // Mostly out of descriptors: the pending connection stays readable, so polling at
                // once would spin.
                let mut stop = [PollFd::new(&self.stop, PollFlags::IN)];
                let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                poll(&mut stop, Some(&moment)).ok();
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, from: IpAddr) {
        if !self.host.options.allow.contains(&from) {
            return self.turn_away(&stream, Refusal::ForeignHost, "this address is not allowed");
        }
        let mut open = self.open.lock();
        if open.connections.len() >= self.host.options.max_connections {
            // Who has not introduced himself makes room: idle strangers must not keep peers out.
            let stranger =
                open.connections.iter().find(|(_, c)| !c.welcomed.load(Relaxed)).map(|(id, _)| *id);
            let Some(stranger) = stranger.and_then(|id| open.connections.remove(&id)) else {
                drop(open);
                return self.turn_away(&stream, Refusal::Busy, "too many connections; retry");
            };
            self.host.counts.refuse(Refusal::Busy);
            stranger.stream.shutdown(Shutdown::Both).ok();
        }
        let (Ok(clone), Ok(())) = (stream.try_clone(), stream.set_nonblocking(false)) else {
            return;
        };
        let id = open.next;
        open.next += 1;
        let welcomed = Arc::new(AtomicBool::new(false));
        open.connections.insert(id, Connection { stream: clone, welcomed: Arc::clone(&welcomed) });
        drop(open);

        let guard = Closing { shared: Arc::clone(self), id };
        self.host.counts.connect();
        // If no thread can be had, the closure is dropped, and with it guard and stream.
        let spawned = std::thread::Builder::new()
            .name("kv-serve".to_owned())
            .spawn(move || serve(&guard.shared.host, stream, &welcomed));
        if let Err(error) = spawned {
            tracing::warn!(%error, "KV side channel: no thread for a connection");
        }
    }

    /// Says why, if the socket takes it at once, and closes.
    fn turn_away(&self, stream: &TcpStream, refusal: Refusal, why: &str) {
        self.host.counts.refuse(refusal);
        let answer = Answer::Refused { refusal, message: why.to_owned() };
        if let Ok(frame) = frame::control(&answer) {
            rustix::net::send(stream, &frame, rustix::net::SendFlags::DONTWAIT).ok();
        }
    }
}

/// Strikes a connection off the list when its thread ends, however it ends.
struct Closing {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.shared.host.counts.disconnect();
        self.shared.open.lock().connections.remove(&self.id);
        self.shared.one_closed.notify_all();
    }
}
