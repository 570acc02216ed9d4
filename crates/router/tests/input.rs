//! What strangers send: wrong, hostile, huge, slow, too many.

mod support;

use serde_json::json;
use support::client::{self, CHAT, COMPLETIONS};
use support::peer::{Peer, Reply};
use support::{recorded, router, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const V: &str = "vllm-0.32";

#[tokio::test]
async fn wrong_bodies_are_refused_and_reach_nobody() {
    let mut prefill = Peer::always(Reply::json(200, b"{}")).await;
    let mut decode = Peer::always(Reply::json(200, b"{}")).await;
    let mut small = settings(&[&prefill], &[&decode]);
    small.max_body_bytes = Some(10_000);
    let router = router(small, 2).await;
    let deep = format!("{{\"messages\":{}", "[".repeat(9_000));
    let huge = format!("{{\"prompt\":\"{}\"}}", "x".repeat(20_000));
    for (body, status, part) in [
        ("", 400, "not a JSON object"),
        ("[1]", 400, "not a JSON object"),
        ("{\"a\":1", 400, "not a JSON object"),
        ("\u{0}\u{1}\u{2}", 400, "not a JSON object"),
        (&deep, 400, "not a JSON object"),
        (&huge, 413, "10000 bytes"),
        (
            r#"{"prompt":"x","kv_transfer_params":{"remote_host":"evil"}}"#,
            400,
            "kv_transfer_params",
        ),
        (r#"{"prompt":"x","kv_transfer_param\u0073":null}"#, 400, "kv_transfer_params"),
    ] {
        for path in [CHAT, COMPLETIONS] {
            let request = client::post(path, body.to_owned());
            let got = client::start(router.address, request).await.whole().await;
            let error = &got.json()["error"];
            assert_eq!(
                (got.status.as_u16(), &error["code"]),
                (status, &json!(status)),
                "{body:.80}"
            );
            assert!(error["message"].as_str().unwrap().contains(part), "{error}");
            assert!(!got.header("x-request-id").is_empty());
            assert_eq!(got.header("x-plumb-route"), "none;reason=refused");
        }
    }
    assert!(prefill.saw_nothing_more() && decode.saw_nothing_more());
}

#[tokio::test]
async fn bytes_that_are_no_http_do_no_harm() {
    let decode = Peer::always(Reply::json(200, b"{}")).await;
    let router = router(settings(&[], &[&decode]), 1).await;
    for garbage in
        [b"\x16\x03\x01\x02\x00\x01".to_vec(), vec![0xff; 100_000], b"GET\r\n\r\n".to_vec()]
    {
        let mut stream = TcpStream::connect(router.address).await.unwrap();
        // It may be cut off while it still sends.
        stream.write_all(&garbage).await.ok();
        let mut answer = Vec::new();
        tokio::time::timeout(support::SOON, stream.read_to_end(&mut answer)).await.unwrap().ok();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    let got = client::ask(router.address, CHAT, &json!({"messages": []})).await;
    assert_eq!(got.status.as_u16(), 200);
    assert!(got.header("x-plumb-route").ends_with("reason=no_prefill_instances"));
}

#[tokio::test]
async fn more_than_a_bounded_queue_is_refused() {
    let mut prefill = Peer::always(Reply::hang()).await;
    let decode = Peer::always(Reply::hang()).await;
    let mut one = settings(&[&prefill], &[&decode]);
    (one.max_in_flight, one.max_queued, one.queue_timeout) = (Some(1), Some(1), Some(0.2));
    let router = router(one, 2).await;
    let address = router.address;
    let first = tokio::spawn(async move { client::ask(address, CHAT, &json!({})).await });
    prefill.asked().await;
    // Its place is taken for as long as it waits.
    let waiting = tokio::spawn(async move { client::ask(address, CHAT, &json!({})).await });
    router.wait_metric("plumb_requests{state=\"queued\"}", 1.0).await;
    let refused = client::ask(router.address, CHAT, &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    let tired = waiting.await.unwrap();
    assert_eq!((tired.status.as_u16(), tired.header("retry-after")), (503, "1"));
    for unrouted in [refused, tired] {
        assert_eq!(unrouted.header("x-plumb-route"), "none;reason=no_place");
    }
    first.abort();
}

#[tokio::test]
async fn two_hundred_streams_at_once_are_all_whole() {
    let events = recorded(V, "chat_stream.decode.response.sse");
    let handed_over = Reply::json(200, &recorded(V, "chat_stream.prefill.response.json"));
    let prefill = [Peer::always(handed_over.clone()).await, Peer::always(handed_over).await];
    let decode = [
        Peer::always(Reply::sse(&events, 100)).await,
        Peer::always(Reply::sse(&events, 33)).await,
        Peer::always(Reply::sse(&events, 1)).await,
    ];
    let all = settings(&prefill.each_ref(), &decode.each_ref());
    let router = router(all, 5).await;
    let mut clients = JoinSet::new();
    for i in 0..200 {
        let address = router.address;
        let body =
            json!({"messages": [{"role": "user", "content": format!("{i}")}], "stream": true});
        clients.spawn(async move { client::ask(address, CHAT, &body).await });
    }
    let answers = clients.join_all().await;
    assert_eq!(answers.len(), 200);
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &events[..]));
    }
    for instance in prefill.iter().chain(&decode) {
        let busy = format!("plumb_router_in_flight{{instance=\"{}\"}}", instance.url());
        router.wait_metric(&busy, 0.0).await;
        let served = answers.iter().filter(|a| a.header("x-plumb-route").contains(&instance.url()));
        assert!(served.count() >= 30, "{} is left out", instance.url());
    }
}

#[tokio::test]
async fn requests_whose_answer_needs_the_whole_prompt_are_not_split() {
    let mut prefill = Peer::always(Reply::json(200, b"{}")).await;
    let mut decode = Peer::always(Reply::json(200, b"{}")).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    let body = json!({"prompt": ["a", "b"], "max_tokens": 3});
    let got = client::ask(router.address, COMPLETIONS, &body).await;
    let expected = format!("local;decode={};reason=many_prompts", decode.url());
    assert_eq!(got.header("x-plumb-route"), expected);
    assert_eq!(support::json(&decode.asked().await.body), body);
    assert!(prefill.saw_nothing_more());
    router
        .wait_metric("plumb_router_routes_total{route=\"local\",reason=\"many_prompts\"}", 1.0)
        .await;
}
