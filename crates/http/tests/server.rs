//! A real listener, spoken to over real sockets.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use plumb_http::{BodyReader, Drained, Limits, Refusal, bind, serve, with_fallbacks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct App {
    reader: BodyReader,
    events: mpsc::UnboundedSender<&'static str>,
    go_on: Arc<Notify>,
}

struct Running {
    address: SocketAddr,
    events: mpsc::UnboundedReceiver<&'static str>,
    go_on: Arc<Notify>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

/// Tells when it is dropped.
struct Tell(mpsc::UnboundedSender<&'static str>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.send("dropped").ok();
    }
}

async fn length(State(app): State<App>, body: Body) -> Response {
    match app.reader.read(body).await {
        Ok(body) => body.len().to_string().into_response(),
        Err(error) => Refusal(error).into_response(),
    }
}

/// Never answers.
async fn hang(State(app): State<App>, _body: Bytes) {
    let _tell = Tell(app.events.clone());
    app.events.send("started").ok();
    pending::<()>().await;
}

/// Answers a first piece, and a second once it may go on.
async fn stream(State(app): State<App>) -> Body {
    let tell = Tell(app.events.clone());
    app.events.send("started").ok();
    Body::from_stream(futures_util::stream::unfold((0, tell), move |(i, tell)| {
        let go_on = app.go_on.clone();
        async move {
            match i {
                0 => {}
                1 => go_on.notified().await,
                _ => return None,
            }
            Some((Ok::<_, std::io::Error>(format!("piece {i}\n")), (i + 1, tell)))
        }
    }))
}

async fn start(limits: Limits) -> Running {
    let (sender, events) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let app = App { reader: BodyReader::new(&limits), events: sender, go_on: go_on.clone() };
    let app = with_fallbacks(
        Router::new()
            .route("/length", post(length))
            .route("/hang", post(hang))
            .route("/stream", get(stream)),
    )
    .with_state(app);
    let listener = bind("127.0.0.1", 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended =
        tokio::spawn(
            async move { serve(listener, app, &limits, async { drop(stopped.await) }).await },
        );
    Running { address, events, go_on, stop, ended }
}

impl Running {
    /// A connection on which this was sent.
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn event(&mut self) -> &'static str {
        timeout(SOON, self.events.recv()).await.expect("an event").unwrap()
    }
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(SOON, stream.read_to_end(&mut text)).await.expect("the end").unwrap();
    String::from_utf8(text).unwrap()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        let read = timeout(SOON, stream.read_buf(&mut text)).await.expect("more").unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = start(Limits { max_body_bytes: 1000, ..Limits::default() }).await;
    let post = "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";

    let body = "x".repeat(1000);
    let ok = rest(server.send(&format!("{post}content-length: 1000\r\n\r\n{body}")).await).await;
    assert!(ok.starts_with("HTTP/1.1 200") && ok.ends_with("\r\n\r\n1000"), "{ok}");

    let large = "x".repeat(200_000);
    let announced = format!("{post}content-length: 200000\r\n\r\n{large}");
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n30d40\r\n{large}\r\n0\r\n\r\n");
    for request in [announced, chunked] {
        let answer = rest(server.send(&request).await).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains(r#""code":413"#) && answer.contains("1000 bytes"), "{answer}");
    }
}

/// A body that is announced need not come before it is refused.
#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let server = start(Limits { max_body_bytes: 1000, ..Limits::default() }).await;
    let asked = std::time::Instant::now();
    let head = "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n";
    let mut stream = server.send(head).await;
    let answer = read_until(&mut stream, "1000 bytes").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(4), "waited {:?}", asked.elapsed());
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let limits = Limits { max_buffered_bytes: 4 << 10, ..Limits::default() };
    let server = start(limits).await;
    let post = "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let large = format!("{post}content-length: 5000\r\n\r\n{}", "x".repeat(5000));
    assert!(rest(server.send(&large).await).await.starts_with("HTTP/1.1 503"));
    // What the refused one held is free again.
    let small = format!("{post}content-length: 4000\r\n\r\n{}", "x".repeat(4000));
    assert!(rest(server.send(&small).await).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let brief = Duration::from_millis(50);
    let server =
        start(Limits { head_timeout: brief, body_timeout: brief, ..Limits::default() }).await;
    let slow =
        server.send("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").await;
    assert!(rest(slow).await.starts_with("HTTP/1.1 408"));
    assert_eq!(rest(server.send("POST /len").await).await, "", "half a head");
    assert_eq!(rest(server.send("").await).await, "", "an idle connection");
}

#[tokio::test]
async fn what_does_not_exist_is_refused_in_openais_shape() {
    let server = start(Limits::default()).await;
    let none = rest(server.send("GET /v1/no HTTP/1.0\r\n\r\n").await).await;
    assert!(none.starts_with("HTTP/1.0 404"), "{none}");
    assert!(none.ends_with(
        r#"{"error":{"message":"There is no GET /v1/no here.","type":"NotFoundError","param":null,"code":404}}"#
    ));
    let method = rest(server.send("PUT /length HTTP/1.0\r\n\r\n").await).await;
    assert!(method.starts_with("HTTP/1.0 405") && method.contains("does not take PUT"), "{method}");
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_handler() {
    let mut server = start(Limits::default()).await;
    let before = server.send("POST /hang HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(server.event().await, "started");
    drop(before);
    assert_eq!(server.event().await, "dropped", "before the first byte");

    let mut within = server.send("GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(server.event().await, "started");
    read_until(&mut within, "piece 0").await;
    drop(within);
    assert_eq!(server.event().await, "dropped", "in the middle of a stream");
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_refuses_what_is_new() {
    let mut server = start(Limits::default()).await;
    let mut stream = server.send("GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let idle = server.send("").await;
    assert_eq!(server.event().await, "started");
    read_until(&mut stream, "piece 0").await;

    server.stop.send(()).unwrap();
    // The stop is seen when it is refused, and not before.
    let refused = loop {
        let answer = TcpStream::connect(server.address).await.unwrap();
        let mut answer = answer;
        answer
            .write_all(b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let answer = rest(answer).await;
        if !answer.starts_with("HTTP/1.1 404") {
            break answer;
        }
    };
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1") && refused.contains(r#""code":503"#), "{refused}");

    server.go_on.notify_one();
    assert!(read_until(&mut stream, "0\r\n\r\n").await.contains("piece 1"));
    let drained = timeout(SOON, server.ended).await.expect("the server ends").unwrap();
    assert_eq!(drained, Drained { cut_off: 0 });
    assert_eq!(rest(idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
    let mut server = start(limits).await;
    let _hanging = server.send("POST /hang HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(server.event().await, "started");
    server.stop.send(()).unwrap();
    let drained = timeout(SOON, server.ended).await.expect("the server ends").unwrap();
    assert_eq!(drained, Drained { cut_off: 1 });
    assert_eq!(timeout(SOON, server.events.recv()).await.unwrap(), Some("dropped"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_while_none_idles() {
    let mut server = start(Limits { max_connections: 1, ..Limits::default() }).await;
    let mut first = server.send("GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(server.event().await, "started");
    let mut second = server.send("GET /none HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let waited = timeout(Duration::from_millis(300), second.readable()).await;
    assert!(waited.is_err(), "the second was served beside the first");
    server.go_on.notify_one();
    assert!(read_until(&mut first, "0\r\n\r\n").await.contains("piece 1"), "cut off");
    assert!(read_until(&mut second, "\r\n\r\n").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room() {
    let request = "GET /none HTTP/1.1\r\nhost: x\r\n\r\n";
    let server = start(Limits { max_connections: 2, ..Limits::default() }).await;
    let silent = server.send("").await;
    let mut asked = server.send(request).await;
    read_until(&mut asked, "\r\n\r\n").await;
    let mut third = server.send(request).await;
    assert!(read_until(&mut third, "\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert_eq!(rest(silent).await, "", "the one that never asked has left");

    asked.write_all(request.as_bytes()).await.unwrap();
    assert!(read_until(&mut asked, "\r\n\r\n").await.contains("404"), "the other one stays");
    let mut fourth = server.send(request).await;
    assert!(read_until(&mut fourth, "\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    let _body = rest(third).await;
    asked.write_all(request.as_bytes()).await.unwrap();
    assert!(read_until(&mut asked, "\r\n\r\n").await.contains("404"), "the busier one stays");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = bind("127.0.0.1", 0).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = bind("127.0.0.1", port).await.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
}
