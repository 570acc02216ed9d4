//! The listener: accepts, serves, and at the end drains.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::Limits;
use crate::drain::Drain;
use crate::held::hold;
use crate::seats::{Seat, Seats};

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
        seats: Seats::new(places),
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
    seats: Seats,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
}

impl Server {
    /// Accepts for ever.
    async fn accept_from(&mut self, listener: &TcpListener) {
        loop {
            tokio::select! {
                stream = accept(listener) => {
                    let seat = self.seats.take().await;
                    self.spawn(stream, seat);
                }
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream, seat: Arc<Seat>) {
        // Tokens are small and each is awaited: they must not wait for one another.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a client left before it was served");
            return;
        }
        let leave = seat.told_to_leave();
        let app = self.service.clone();
        let service = service_fn(move |request| {
            let busy = seat.busy();
            let answer = app.call(request);
            async move { answer.await.map(|answer| hold(answer, busy)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        self.connections.spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%error, "a connection ended early");
                },
                () = leave => debug!("an idle connection made room for another"),
            }
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

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
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
