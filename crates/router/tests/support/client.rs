//! A client of the router.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::SOON;

pub const CHAT: &str = "/v1/chat/completions";
pub const COMPLETIONS: &str = "/v1/completions";

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        super::json(&self.body)
    }
}

/// A request on its way; dropping it is leaving.
pub struct Asking {
    connection: AbortHandle,
    sent: http1::SendRequest<Full<Bytes>>,
    request: Option<Request<Full<Bytes>>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Asking {
    pub async fn head(&mut self) -> http::Response<Incoming> {
        let request = self.request.take().expect("asked once");
        let answer = timeout(SOON, self.sent.send_request(request)).await;
        answer.expect("an answer in time").expect("an answer")
    }

    pub async fn whole(mut self) -> Answer {
        let (head, body) = self.head().await.into_parts();
        let body = timeout(SOON, body.collect()).await.expect("the end in time").unwrap();
        Answer { status: head.status, headers: head.headers, body: body.to_bytes() }
    }
}

pub async fn start(address: SocketAddr, request: Request<Full<Bytes>>) -> Asking {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sent, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    Asking { connection: task.abort_handle(), sent, request: Some(request) }
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "router")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

pub async fn ask(address: SocketAddr, path: &str, body: &Value) -> Answer {
    start(address, post(path, body.to_string())).await.whole().await
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = Request::get(path).header("host", "router").body(Full::default()).unwrap();
    start(address, request).await.whole().await
}
