//! A client that leaves, at each stage: both legs end, and blocks that nobody will pull are given
//! back. What the peers saw is what counts.

mod support;

use http_body_util::BodyExt;
use serde_json::json;
use support::client::{self, Asking, CHAT};
use support::peer::{Peer, Reply, Seen};
use support::{Router, json, recorded, router, settings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const V: &str = "vllm-0.32";

fn handed_over() -> Vec<u8> {
    recorded(V, "chat_stream.prefill.response.json")
}

fn lease_path() -> String {
    let id = json(&handed_over())["kv_transfer_params"]["remote_request_id"].clone();
    format!("/kv/leases/{}", id.as_str().unwrap())
}

/// A client that has sent its request and waits.
async fn waiting(router: &Router) -> TcpStream {
    let mut stream = TcpStream::connect(router.address).await.unwrap();
    let body = json!({"messages": [], "stream": true}).to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

async fn nothing_in_flight(router: &Router) {
    for state in ["prefill", "decode", "queued"] {
        router.wait_metric(&format!("plumb_requests{{state=\"{state}\"}}"), 0.0).await;
    }
}

#[tokio::test]
async fn during_prefill() {
    let mut prefill = Peer::always(Reply::hang()).await;
    let mut decode = Peer::always(Reply::hang()).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    let client = waiting(&router).await;
    prefill.asked().await;
    drop(client);
    assert_eq!(prefill.seen().await, Seen::Left(CHAT.into()));
    nothing_in_flight(&router).await;
    assert!(decode.saw_nothing_more());
}

/// The client leaves, and the prefill instance answers before it notices: the answer is read, and
/// the lease that it tells of given back.
#[tokio::test]
async fn during_prefill_with_the_answer_under_way() {
    let (answered, mut half_closed) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut decode = Peer::always(Reply::hang()).await;
    let address = listener.local_addr().unwrap();
    let prefill = tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let answer = handed_over();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        let tasks = &mut tokio::task::JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (answered, head, answer) = (answered.clone(), head.clone(), answer.clone());
            tasks.spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap_or(0) > 0 {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let line = text.lines().next().unwrap_or_default().to_owned();
                    let whole = text.contains("\r\n\r\n");
                    if whole && (line.starts_with("GET") || line.starts_with("DELETE")) {
                        answered.send(line).unwrap();
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                            .await
                            .unwrap();
                        request.clear();
                    } else if text.ends_with('}') {
                        answered.send(line).unwrap();
                    }
                }
                if !request.is_empty() {
                    // Its asker has left; what was decided before still goes out.
                    stream.write_all(head.as_bytes()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                    // Nor does it close at once: its asker must know that the connection is spent.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let mut settings = settings(&[], &[&decode]);
    settings.prefill = Some(vec![format!("http://{address}")]);
    let router = router(settings, 2).await;
    let client = waiting(&router).await;
    let mut next = async |wanted: &str| {
        let line = async {
            loop {
                let line = half_closed.recv().await.unwrap();
                if line.starts_with(wanted) {
                    return line;
                }
            }
        };
        let line = tokio::time::timeout(support::SOON, line).await;
        line.unwrap_or_else(|_| panic!("no {wanted}"))
    };
    next("POST").await;
    drop(client);
    assert_eq!(next("DELETE").await, format!("DELETE {} HTTP/1.1", lease_path()));
    nothing_in_flight(&router).await;
    assert!(decode.saw_nothing_more());
    prefill.abort();
}

#[tokio::test]
async fn before_the_first_token() {
    let mut prefill = Peer::start(|request| match request.method.as_str() {
        "POST" => Reply::json(200, &handed_over()),
        _ => Reply::json(200, b"{}"),
    })
    .await;
    let mut decode = Peer::always(Reply::hang()).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    let mut request = client::post(CHAT, r#"{"messages":[]}"#);
    request.headers_mut().insert("authorization", "Bearer k".parse().unwrap());
    let mut client = client::start(router.address, request).await;
    let asked = tokio::select! {
        _ = client.head() => panic!("nobody answers"),
        asked = decode.asked() => asked,
    };
    assert_eq!(asked.path, CHAT);
    drop(client);
    assert_eq!(decode.seen().await, Seen::Left(CHAT.into()));
    assert_eq!(prefill.asked().await.method, "POST");
    let release = prefill.asked().await;
    assert_eq!((release.method.as_str(), release.path), ("DELETE", lease_path()));
    assert_eq!(release.headers["authorization"], "Bearer k");
    router.wait_metric("plumb_router_leases_total{end=\"released\"}", 1.0).await;
    nothing_in_flight(&router).await;
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    let mut prefill = Peer::always(Reply::json(200, &handed_over())).await;
    let events = recorded(V, "chat_stream.decode.response.sse");
    let mut decode = Peer::always(Reply::open_sse(&events[..2000], 100)).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    let request = client::post(CHAT, r#"{"messages":[],"stream":true}"#);
    let mut client: Asking = client::start(router.address, request).await;
    let mut body = client.head().await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(events.starts_with(&first) && !first.is_empty());
    decode.asked().await;
    drop((body, client));
    assert_eq!(decode.seen().await, Seen::Left(CHAT.into()));
    nothing_in_flight(&router).await;
    assert_eq!(prefill.asked().await.method, "POST");
    assert!(prefill.saw_nothing_more(), "decode has pulled: nothing is given back");
}

#[tokio::test]
async fn in_the_queue() {
    let mut prefill = Peer::always(Reply::hang()).await;
    let decode = Peer::always(Reply::hang()).await;
    let mut one = settings(&[&prefill], &[&decode]);
    one.max_in_flight = Some(1);
    let router = router(one, 2).await;
    let first = waiting(&router).await;
    prefill.asked().await;
    let second = waiting(&router).await;
    router.wait_metric("plumb_requests{state=\"queued\"}", 1.0).await;
    drop(second);
    router.wait_metric("plumb_requests{state=\"queued\"}", 0.0).await;
    drop(first);
    assert_eq!(prefill.seen().await, Seen::Left(CHAT.into()));
    nothing_in_flight(&router).await;
    let more = prefill.seen_more();
    assert_eq!(more, None);
}

/// vLLM has no call that gives a lease back; a lease that our worker does not hold any more was
/// pulled. The two are told apart.
#[tokio::test]
async fn leases_that_cannot_be_given_back_are_counted() {
    let gone = json!({"error": {"message": "no such lease", "type": "NotFoundError",
        "param": "remote_request_id", "code": 404}});
    for (status, answer, end) in [
        (404, br#"{"detail":"Not Found"}"#.to_vec(), "stranded"),
        (405, br#"{"error":{"message":"Method Not Allowed","code":405}}"#.to_vec(), "stranded"),
        (404, gone.to_string().into_bytes(), "gone"),
    ] {
        let prefill = Peer::start(move |request| match request.method.as_str() {
            "POST" => Reply::json(200, &handed_over()),
            _ => Reply::json(status, &answer),
        })
        .await;
        let mut decode = Peer::always(Reply::hang()).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let client = waiting(&router).await;
        decode.asked().await;
        drop(client);
        router.wait_metric(&format!("plumb_router_leases_total{{end=\"{end}\"}}"), 1.0).await;
    }
}

#[tokio::test]
async fn a_drain_that_cuts_off_gives_leases_back_too() {
    let mut prefill = Peer::always(Reply::json(200, &handed_over())).await;
    let mut decode = Peer::always(Reply::hang()).await;
    let mut brief = settings(&[&prefill], &[&decode]);
    brief.drain_timeout = Some(0.05);
    let mut router = router(brief, 2).await;
    let _client = waiting(&router).await;
    decode.asked().await;
    router.stop();
    router.ended().await;
    assert_eq!(decode.seen().await, Seen::Left(CHAT.into()));
    assert_eq!(prefill.asked().await.method, "POST");
    assert_eq!(prefill.asked().await.method, "DELETE");
}
