//! The listener: accepts, serves, and at the end drains.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::Limits;
use crate::drain::Drain;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// After the last answer was handed to the kernel, connections get this long to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still in flight when the drain's time was over, and were cut off.
    pub cut_off: usize,
}

/// Listens on `host:port`; port 0 takes a free one.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let name =
        |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {host}:{port}: {e}"));
    let address: SocketAddr = lookup_host((host, port))
        .await
        .map_err(name)?
        .next()
        .ok_or_else(|| name(io::Error::other("no such host")))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).map_err(name)?;
    socket.listen(BACKLOG).map_err(name)
}

/// Serves `app` until `shutdown` ends, then drains: new requests get a 503, those in flight finish
/// within [`Limits::drain_timeout`], and what is left then is cut off.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let places = connections_within_descriptors(limits.max_connections);
    let drain = Drain::default();
    let mut server = Server {
        service: TowerToHyperService::new(drain.watch(app)),
        head_timeout: limits.head_timeout,
        places: Arc::new(Semaphore::new(places)),
        graceful: GracefulShutdown::new(),
        connections: JoinSet::new(),
    };
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = server.accept_from(&listener) => {}
        () = &mut shutdown => {}
    }
    drain.begin();
    tokio::select! {
        () = server.accept_from(&listener) => {}
        () = drain.finished() => {}
        () = sleep(limits.drain_timeout) => {}
    }
    drop(listener);
    let cut_off = drain.in_flight();
    server.close(cut_off == 0).await;
    Drained { cut_off }
}

struct Server {
    service: TowerToHyperService<Router>,
    head_timeout: Duration,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
}

impl Server {
    /// Accepts for ever.
    async fn accept_from(&mut self, listener: &TcpListener) {
        loop {
            tokio::select! {
                (stream, place) = accept(listener, &self.places) => self.spawn(stream, place),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // Tokens are small and each is awaited: they must not wait for one another.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a client left before it was served");
            return;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), self.service.clone());
        let connection = self.graceful.watch(connection);
        self.connections.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }

    /// Closes idle connections at once and the others after their answer, or cuts all off.
    async fn close(mut self, politely: bool) {
        if politely {
            drop(timeout(CLOSE_TIMEOUT, self.graceful.shutdown()).await);
        }
        self.connections.shutdown().await;
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // Out of descriptors, or a client that has gone already: neither is the end.
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Raises this process's bound on open descriptors as far as it may, and gives the connections
/// that it can take: a quarter of the descriptors stays for everything else.
fn connections_within_descriptors(wanted: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            debug!(%error, "cannot raise the limit on open files");
        }
    }
    let Some(most) = getrlimit(Resource::Nofile).current else { return wanted };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let taken = wanted.min(most - most / 4);
    if taken < wanted {
        info!("{most} files may be open here: {taken} connections at once, of {wanted}");
    }
    taken
}
