//! Asking one instance over HTTP/1: connections kept for reuse, and each request's connection
//! closed the moment its asker loses interest, which is how an instance learns of it.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::debug;

/// Idle connections kept.
const MAX_IDLE: usize = 1024;
/// vLLM's server closes a connection that idled for 5 s; one taken shortly before would fail.
const MAX_IDLE_TIME: Duration = Duration::from_secs(4);
/// Bytes of an answer that is read whole.
const MAX_ANSWER: usize = 64 << 20;

/// Why an instance gave no whole answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It cannot be connected to: it never saw the request.
    #[error("cannot be reached: {0}")]
    Unreached(String),
    /// The connection ended before the answer did.
    #[error("closed the connection before its answer was whole: {0}")]
    Died(String),
    /// It did not answer in time.
    #[error("did not answer in time")]
    Late,
    /// Its answer is larger than we hold.
    #[error("its answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
}

/// One instance's address, and the connections to it that are idle.
#[derive(Debug)]
pub(crate) struct Upstream {
    authority: Authority,
    idle: Arc<Mutex<VecDeque<(Wire, Instant)>>>,
}

/// A request, ready to be sent again if it must.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer whose body is still on its way. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    wire: Option<Wire>,
    idle: Arc<Mutex<VecDeque<(Wire, Instant)>>>,
}

/// One connection; closed when dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
    socket: Arc<Socket>,
    reused: bool,
}

/// A connection's socket, beside the task that speaks on it.
#[derive(Debug)]
struct Socket {
    stream: StdStream,
    /// The asker has left: nothing is to be sent any more, nor sent again.
    left: AtomicBool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends the sending half of a connection: the peer sees that its asker has left, and what it had
/// answered already still arrives.
#[derive(Debug)]
pub(crate) struct HalfClose(Arc<Socket>);

impl HalfClose {
    pub(crate) fn close(&self) {
        self.0.left.store(true, Ordering::Release);
        if let Err(error) = self.0.stream.shutdown(Shutdown::Write) {
            debug!(%error, "the connection had ended already");
        }
    }
}

impl Upstream {
    pub(crate) fn new(uri: &Uri) -> Self {
        let authority = uri.authority().cloned();
        let authority = authority.unwrap_or_else(|| Authority::from_static("localhost"));
        Self { authority, idle: Arc::default() }
    }

    /// Closes what is idle: the instance has gone or is another one now.
    pub(crate) fn forget_connections(&self) {
        self.idle.lock().clear();
    }

    /// A connection: an idle one, or a new one.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Wire, UpstreamError> {
        loop {
            let Some((mut wire, since)) = self.idle.lock().pop_back() else { break };
            let usable = since.elapsed() < MAX_IDLE_TIME && wire.sender.ready().await.is_ok();
            if usable {
                wire.reused = true;
                return Ok(wire);
            }
        }
        self.connect_anew(limit).await
    }

    async fn connect_anew(&self, limit: Duration) -> Result<Wire, UpstreamError> {
        let unreached = |e: &dyn std::error::Error| UpstreamError::Unreached(e.to_string());
        let host = self.authority.host().trim_matches(['[', ']']);
        let address = (host, self.authority.port_u16().unwrap_or(80));
        let stream = timeout(limit, TcpStream::connect(address))
            .await
            .map_err(|_| UpstreamError::Unreached("no connection in time".into()))?
            .map_err(|e| unreached(&e))?;
        let socket = prepare(&stream).map_err(|e| unreached(&e))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreached(&e))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to an instance ended early");
            }
        });
        Ok(Wire { sender, task: task.abort_handle(), socket, reused: false })
    }

    /// Sends a request on a connection and waits for the answer's head. A kept connection that the
    /// instance closed while it idled is replaced by a new one, once.
    pub(crate) async fn send(
        &self,
        mut wire: Wire,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Stream, UpstreamError> {
        let sent = wire.sender.send_request(self.request(ask)).await;
        let (response, wire) = match sent {
            Ok(response) => (response, wire),
            Err(_) if wire.reused && !wire.left() => {
                drop(wire);
                let mut wire = self.connect_anew(limit).await?;
                let sent = wire.sender.send_request(self.request(ask)).await;
                (sent.map_err(|e| UpstreamError::Died(e.to_string()))?, wire)
            }
            Err(error) => return Err(UpstreamError::Died(error.to_string())),
        };
        Ok(Stream::new(response, wire, self.idle.clone()))
    }

    /// Asks and reads the whole answer, all within `limit`.
    pub(crate) async fn ask(&self, ask: &Ask, limit: Duration) -> Result<Answer, UpstreamError> {
        let asked = async {
            let wire = self.connect(limit).await?;
            self.send(wire, ask, limit).await?.whole().await
        };
        timeout(limit, asked).await.unwrap_or(Err(UpstreamError::Late))
    }

    fn request(&self, ask: &Ask) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        *request.headers_mut() = ask.headers.clone();
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(ask.body.len()));
        request
    }
}

impl Wire {
    pub(crate) fn half_close(&self) -> HalfClose {
        HalfClose(self.socket.clone())
    }

    /// Whether its asker has left.
    fn left(&self) -> bool {
        self.socket.left.load(Ordering::Acquire)
    }
}

impl Stream {
    fn new(
        response: Response<Incoming>,
        wire: Wire,
        idle: Arc<Mutex<VecDeque<(Wire, Instant)>>>,
    ) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, wire: Some(wire), idle }
    }

    /// The next piece; none at a clean end, after which the connection is kept for others.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            match self.body.frame().await {
                None => {
                    self.keep();
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(UpstreamError::Died(error.to_string())),
            }
        }
    }

    /// The whole answer.
    pub(crate) async fn whole(mut self) -> Result<Answer, UpstreamError> {
        let body = match Limited::new(&mut self.body, MAX_ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(UpstreamError::TooLarge);
            }
            Err(error) => return Err(UpstreamError::Died(error.to_string())),
        };
        self.keep();
        let headers = std::mem::take(&mut self.headers);
        Ok(Answer { status: self.status, headers, body })
    }

    fn keep(&mut self) {
        // One that was half-closed takes no further request.
        let Some(wire) = self.wire.take_if(|wire| !wire.left()) else { return };
        let mut idle = self.idle.lock();
        if idle.len() == MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back((wire, Instant::now()));
    }
}

fn prepare(stream: &TcpStream) -> io::Result<Arc<Socket>> {
    stream.set_nodelay(true)?;
    let stream = StdStream::from(stream.as_fd().try_clone_to_owned()?);
    Ok(Arc::new(Socket { stream, left: AtomicBool::new(false) }))
}
