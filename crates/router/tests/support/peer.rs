//! An instance played by a script: it records each request, answers raw bytes, and tells when the
//! other side has left.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::SOON;

/// What a peer saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Asked(Request),
    /// The other side closed while this path was being answered.
    Left(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// Bytes to send, and what follows.
#[derive(Debug, Clone)]
pub struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    GoOn,
    Close,
    Hang,
}

impl Reply {
    fn head(status: u16, kind: &str, rest: &str) -> String {
        format!("HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\nx-peer: yes\r\n{rest}\r\n\r\n")
    }

    pub fn json(status: u16, body: &[u8]) -> Self {
        let head =
            Self::head(status, "application/json", &format!("content-length: {}", body.len()));
        Self { bytes: [head.as_bytes(), body].concat(), then: Then::GoOn }
    }

    /// A stream of events in chunks of `size` bytes.
    pub fn sse(body: &[u8], size: usize) -> Self {
        let mut reply = Self::open_sse(body, size);
        reply.bytes.extend_from_slice(b"0\r\n\r\n");
        reply.then = Then::GoOn;
        reply
    }

    /// A stream of events that neither ends nor closes.
    pub fn open_sse(body: &[u8], size: usize) -> Self {
        let head =
            Self::head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked");
        let mut bytes = head.into_bytes();
        for piece in body.chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        Self { bytes, then: Then::Hang }
    }

    pub fn hang() -> Self {
        Self { bytes: Vec::new(), then: Then::Hang }
    }

    /// The same reply, cut off after this many bytes.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.bytes.truncate(bytes);
        self.then = Then::Close;
        self
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

pub struct Peer {
    pub address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    serving: JoinSet<()>,
}

impl Peer {
    /// Answers `/health` itself and everything else by the script.
    pub async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn start_at(
        address: SocketAddr,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let script: Arc<Script> = Arc::new(script);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn(serve(stream, script.clone(), sender.clone()));
            }
        });
        Self { address, seen, serving }
    }

    /// A peer that answers the same to everything.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next thing that happened.
    pub async fn seen(&mut self) -> Seen {
        timeout(SOON, self.seen.recv()).await.expect("something happens").unwrap()
    }

    /// The next request.
    pub async fn asked(&mut self) -> Request {
        match self.seen().await {
            Seen::Asked(request) => request,
            other => panic!("{other:?} and no request"),
        }
    }

    /// What more has happened so far.
    pub fn seen_more(&mut self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }

    /// Whether nothing more has happened so far.
    pub fn saw_nothing_more(&mut self) -> bool {
        self.seen_more().is_none()
    }

    /// Dies: its listener and connections are gone when this is done.
    pub async fn kill(mut self) {
        self.serving.shutdown().await;
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, seen: mpsc::UnboundedSender<Seen>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        if request.path == "/health" {
            let reply = Reply::json(200, b"{}");
            stream.write_all(&reply.bytes).await.ok();
            continue;
        }
        let path = request.path.clone();
        let reply = script(&request);
        seen.send(Seen::Asked(request)).ok();
        if stream.write_all(&reply.bytes).await.is_err() {
            seen.send(Seen::Left(path)).ok();
            return;
        }
        match reply.then {
            Then::GoOn => {}
            Then::Close => return,
            Then::Hang => {
                while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {}
                seen.send(Seen::Left(path)).ok();
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut words = lines.next()?.split(' ').map(str::to_owned);
            let (method, path) = (words.next()?, words.next()?);
            let headers: HashMap<String, String> = lines
                .filter_map(|l| l.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
            let start = head.len() + 4;
            while buffer.len() < start + length {
                timeout(Duration::from_secs(20), stream.read_buf(buffer)).await.ok()?.ok()?;
            }
            let body = buffer[start..start + length].to_vec();
            buffer.drain(..start + length);
            return Some(Request { method, path, headers, body });
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
