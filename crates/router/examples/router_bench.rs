//! What the router costs: latency that it adds, requests per CPU-second, many streams at once.
//!
//! Mocks, router and clients are processes of their own. `direct` sends the same two legs to the
//! mocks without a router, in the same run.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use plumb_http::{Limits, bind, serve};
use plumb_router::{Observed, Settings};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

const PATH: &str = "/v1/completions";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"token\"}]}\n\n";
const PREFILLED: &str = r#"{"choices":[],"kv_transfer_params":{"do_remote_prefill":true,
"remote_block_ids":[[1,2,3]],"remote_engine_id":"e","remote_request_id":"r","remote_host":"h",
"remote_port":1}}"#;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match args.first().map(String::as_str) {
        Some("mock") => runtime.block_on(mock(args[1].parse().expect("milliseconds"))),
        Some("router") => runtime.block_on(router(&args[1])),
        _ => runtime.block_on(bench()),
    }
}

/// Answers after `delay` ms; a stream has as many tokens as it is asked for, 10 a second.
async fn mock(delay: u64) {
    let answer = move |body: Bytes| async move {
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let tail = &body[body.len().saturating_sub(400)..];
        let tail = String::from_utf8_lossy(tail);
        if tail.contains("\"do_remote_decode\":true") {
            return PREFILLED.into_response();
        }
        let asked = tail.split("\"max_tokens\":").nth(1).unwrap_or_default();
        let asked = asked.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let tokens = asked.parse().unwrap_or(0);
        if body.starts_with(b"{\"stream\":true") { stream(tokens) } else { "{}".into_response() }
    };
    let app = axum::Router::new().route("/health", get(async || ())).route(PATH, post(answer));
    let listener = bind("127.0.0.1", 0).await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    serve(listener, app, &Limits::default(), std::future::pending()).await;
}

fn stream(length: usize) -> Response {
    let tokens = futures_util::stream::unfold(0, move |i| async move {
        if i > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let event = if i == length { "data: [DONE]\n\n" } else { TOKEN };
        (i <= length).then_some((Ok::<_, std::io::Error>(event), i + 1))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(tokens)).into_response()
}

async fn router(instance: &str) {
    let url = Some(vec![format!("http://{instance}")]);
    let settings = Settings { prefill: url.clone(), decode: url, ..Settings::default() };
    let listener = bind("127.0.0.1", 0).await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let options = settings.options().expect("options");
    plumb_router::serve(listener, options, Observed::default(), std::future::pending()).await;
}

struct Part(Child, SocketAddr);

impl Part {
    fn start(args: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child =
            Command::new(program).args(args).stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its address");
        Self(child, line.trim().parse().expect("an address"))
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split(' ').collect();
        let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
        (ticks(12) + ticks(13)) / 100.0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, body: &Bytes) {
    sender.ready().await.expect("ready");
    let request = Request::post(PATH).header("host", "x").body(Full::new(body.clone()));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert!(answer.status().is_success());
    answer.into_body().collect().await.expect("a whole answer");
}

/// Latencies in ms of `each` requests by each of `clients`; a request asks all of `bodies` in turn.
async fn load(address: SocketAddr, bodies: Vec<Bytes>, clients: usize, each: usize) -> Vec<f64> {
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let bodies = bodies.clone();
        all.spawn(async move {
            let mut sender = connect(address).await;
            let mut took = Vec::new();
            for _ in 0..each {
                let start = Instant::now();
                for body in &bodies {
                    ask(&mut sender, body).await;
                }
                took.push(start.elapsed().as_secs_f64() * 1e3);
            }
            took
        });
    }
    let mut took: Vec<f64> = all.join_all().await.concat();
    took.sort_by(f64::total_cmp);
    took
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn client_body(bytes: usize, stream: bool, tokens: usize) -> Bytes {
    let prompt = "x".repeat(bytes);
    format!("{{\"stream\":{stream},\"prompt\":\"{prompt}\",\"max_tokens\":{tokens}}}").into()
}

fn prefill_body(bytes: usize) -> Bytes {
    let ask = r#"{"do_remote_decode":true}"#;
    format!("{{\"prompt\":\"{}\",\"kv_transfer_params\":{ask}}}", "x".repeat(bytes)).into()
}

async fn added_latency() {
    let mock = Part::start(&["mock", "50"]);
    let router = Part::start(&["router", &mock.1.to_string()]);
    wait_up(router.1).await;
    let (client, legs) = (client_body(16 << 10, false, 16), [prefill_body(16 << 10)]);
    let legs = [legs.as_slice(), std::slice::from_ref(&client)].concat();
    for round in 0..3 {
        let direct = load(mock.1, legs.clone(), 64, 20).await;
        let routed = load(router.1, vec![client.clone()], 64, 20).await;
        let added = |share| (at(&routed, share) - at(&direct, share)) / 2.0 * 1e3;
        println!(
            "latency {round}: added a leg p50 {:.0} us, p99 {:.0} us",
            added(0.5),
            added(0.99)
        );
    }
}

async fn long_prompts() {
    let mock = Part::start(&["mock", "0"]);
    let router = Part::start(&["router", &mock.1.to_string()]);
    wait_up(router.1).await;
    let body = client_body(220 << 10, false, 16);
    for round in 0..3 {
        let before = router.cpu_seconds();
        let took = load(router.1, vec![body.clone()], 8, 150).await;
        let cpu = router.cpu_seconds() - before;
        println!("220 KB {round}: {:.0} requests per CPU-second", took.len() as f64 / cpu);
    }
}

/// 2,000 streams stay open while new ones begin, 100 a second, whether the others have or not.
async fn many_streams() {
    let mock = Part::start(&["mock", "0"]);
    let router = Part::start(&["router", &mock.1.to_string()]);
    wait_up(router.1).await;
    let stream = client_body(1000, true, OPEN_SECONDS * 10);
    let legs = vec![prefill_body(1000), stream.clone()];
    for round in 0..3 {
        let direct = first_tokens(mock.1, &legs).await;
        let before = router.cpu_seconds();
        let routed = first_tokens(router.1, std::slice::from_ref(&stream)).await;
        let cpu = router.cpu_seconds() - before;
        println!(
            "streams {round}: first token p50 {:.1} ms, p99 {:.1} ms; direct {:.1} and {:.1}; added \
             p99 {:.1} ms; router CPU {cpu:.1} s",
            at(&routed, 0.5),
            at(&routed, 0.99),
            at(&direct, 0.5),
            at(&direct, 0.99),
            at(&routed, 0.99) - at(&direct, 0.99),
        );
    }
}

/// Seconds that a stream stays open: until the last new one has its first token.
const OPEN_SECONDS: usize = 30;
const OPEN: usize = 2000;
const NEW: u32 = 800;

/// Milliseconds from the moment at which each new request was due to its first token.
async fn first_tokens(address: SocketAddr, bodies: &[Bytes]) -> Vec<f64> {
    let mut open = JoinSet::new();
    for _ in 0..OPEN {
        open.spawn(begin(address, bodies.to_vec()));
    }
    let open: Vec<_> = open.join_all().await.into_iter().map(follow).collect();
    let (start, mut new) = (Instant::now(), JoinSet::new());
    for i in 0..NEW {
        let due = start + i * Duration::from_millis(10);
        tokio::time::sleep_until(due.into()).await;
        let begun = begin(address, bodies.to_vec());
        new.spawn(async move {
            let stream = begun.await;
            (due.elapsed().as_secs_f64() * 1e3, follow(stream))
        });
    }
    let (mut took, new): (Vec<f64>, Vec<_>) = new.join_all().await.into_iter().unzip();
    for stream in open.into_iter().chain(new) {
        assert!(!stream.is_finished(), "a stream ended too soon");
        stream.abort();
    }
    took.sort_by(f64::total_cmp);
    took
}

/// Asks all of `bodies` in turn; the last one's answer, its first token taken.
async fn begin(address: SocketAddr, bodies: Vec<Bytes>) -> (SendRequest<Full<Bytes>>, Incoming) {
    let mut sender = connect(address).await;
    let (last, before) = bodies.split_last().expect("a body");
    for body in before {
        ask(&mut sender, body).await;
    }
    sender.ready().await.expect("ready");
    let request = Request::post(PATH).header("host", "x").body(Full::new(last.clone()));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    let mut body = answer.into_body();
    body.frame().await.expect("a first token").expect("whole");
    (sender, body)
}

fn follow((sender, mut body): (SendRequest<Full<Bytes>>, Incoming)) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(Ok(_)) = body.frame().await {}
        drop(sender);
    })
}

async fn wait_up(router: SocketAddr) {
    loop {
        let mut sender = connect(router).await;
        let request = Request::get("/health").header("host", "x").body(Full::default());
        let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
        if answer.status().is_success() {
            return;
        }
    }
}

async fn bench() {
    added_latency().await;
    long_prompts().await;
    many_streams().await;
}
