//! Our router in front of peers that answer what vLLM answered: it sends them the legs that vLLM
//! was sent, and its client gets what vLLM answered, bit for bit.

mod support;

use http::HeaderValue;
use serde_json::json;
use support::client::{self, CHAT, COMPLETIONS};
use support::peer::{Peer, Reply};
use support::{json, recorded, router, settings, short_request};

const VERSIONS: [&str; 2] = ["vllm-0.13", "vllm-0.32"];

#[tokio::test]
async fn the_legs_are_those_that_vllm_was_sent() {
    for version in VERSIONS {
        let answer = recorded(version, "completion_short.decode.response.json");
        let mut prefill = Peer::always(Reply::json(
            200,
            &recorded(version, "completion_short.prefill.response.json"),
        ))
        .await;
        let mut decode = Peer::always(Reply::json(200, &answer)).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;

        let got = client::ask(router.address, COMPLETIONS, &short_request(version)).await;
        assert_eq!((got.status.as_u16(), &got.body[..]), (200, &answer[..]));
        assert_eq!(
            got.header("x-plumb-route"),
            format!("pd;prefill={};decode={};reason=disaggregated", prefill.url(), decode.url()),
        );

        let first = prefill.asked().await;
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", COMPLETIONS));
        let expected = recorded(version, "completion_short.prefill.request.json");
        assert_eq!(json(&first.body), json(&expected));
        let second = decode.asked().await;
        assert_eq!(second.path, COMPLETIONS);
        let expected = recorded(version, "completion_short.decode.request.json");
        assert_eq!(json(&second.body), json(&expected));
        assert_eq!(first.headers["x-request-id"], second.headers["x-request-id"]);
        assert_eq!(got.header("x-request-id"), second.headers["x-request-id"]);
        assert!(prefill.saw_nothing_more(), "the lease is decode's business");
    }
}

#[tokio::test]
async fn streams_are_relayed_bit_for_bit_however_they_are_cut() {
    for version in VERSIONS {
        for (case, path) in [("chat_stream", CHAT), ("completion_stream", COMPLETIONS)] {
            let stream = recorded(version, &format!("{case}.decode.response.sse"));
            let answer = recorded(version, &format!("{case}.prefill.response.json"));
            for size in [1, 7, 100, 1 << 20] {
                let prefill = Peer::always(Reply::json(200, &answer)).await;
                let mut decode = Peer::always(Reply::sse(&stream, size)).await;
                let router = router(settings(&[&prefill], &[&decode]), 2).await;
                let request = json!({
                    "model": "tiny", "prompt": "x", "stream": true,
                    "stream_options": {"include_usage": true},
                });
                let got = client::ask(router.address, path, &request).await;
                assert_eq!(got.body, stream, "{version} {case} in pieces of {size}");
                assert_eq!(got.header("content-type"), "text/event-stream; charset=utf-8");
                assert_eq!(got.header("x-peer"), "yes", "headers that we do not know pass");
                let leg = json(&decode.asked().await.body);
                assert_eq!(leg["kv_transfer_params"], json(&answer)["kv_transfer_params"]);
                assert_eq!(leg["stream_options"], request["stream_options"]);
            }
        }
    }
}

#[tokio::test]
async fn headers_pass_to_both_legs() {
    let answer = recorded("vllm-0.32", "completion_short.prefill.response.json");
    let mut prefill = Peer::always(Reply::json(200, &answer)).await;
    let mut decode = Peer::always(Reply::json(200, b"{}")).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    let mut request = client::post(CHAT, r#"{"messages":[]}"#);
    let passed = [
        ("x-request-id", "mine-1"),
        ("authorization", "Bearer secret"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    for (name, value) in passed {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request.headers_mut().insert("cookie", HeaderValue::from_static("private"));
    let got = client::start(router.address, request).await.whole().await;
    assert_eq!(got.header("x-request-id"), "mine-1");
    for leg in [prefill.asked().await, decode.asked().await] {
        for (name, value) in passed {
            assert_eq!(leg.headers[name], value);
        }
        assert!(!leg.headers.contains_key("cookie"));
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_gets_the_instances_own_answer() {
    for name in ["err_unknown_model", "err_too_long"] {
        let answer = recorded("vllm-0.32", &format!("{name}.response.json"));
        let status = json(&answer)["error"]["code"].as_u64().unwrap() as u16;
        let prefill = Peer::always(Reply::json(status, &answer)).await;
        let mut decode = Peer::always(Reply::json(200, b"{}")).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let got = client::ask(router.address, CHAT, &json!({"messages": []})).await;
        assert_eq!((got.status.as_u16(), &got.body[..]), (status, &answer[..]));
        assert!(decode.saw_nothing_more(), "decode is not asked what prefill refused");
    }
}

#[tokio::test]
async fn models_and_tokens_are_asked_of_instances() {
    let prefill = Peer::always(Reply::json(200, b"{}")).await;
    let script = |model: &'static str| {
        move |request: &support::peer::Request| match request.path.as_str() {
            "/v1/models" => {
                let list =
                    json!({"object": "list", "data": [{"id": "both"}, {"id": model, "x": 1}]});
                Reply::json(200, list.to_string().as_bytes())
            }
            "/tokenize" => Reply::json(200, &[b"got ", &request.body[..]].concat()),
            _ => Reply::json(500, b"{}"),
        }
    };
    let (a, b) = (Peer::start(script("a")).await, Peer::start(script("b")).await);
    let ill = Peer::always(Reply::json(500, b"{}")).await;
    let all = router(settings(&[], &[&ill, &a]), 2).await;
    let models = client::get(all.address, "/v1/models").await.json();
    assert_eq!(models["data"][1]["id"], "a", "one that cannot tell hides no other");
    let router = router(settings(&[&prefill], &[&a, &b]), 3).await;
    let models = client::get(router.address, "/v1/models").await.json();
    assert_eq!(models["data"], json!([{"id": "both"}, {"id": "a", "x": 1}, {"id": "b", "x": 1}]));
    let one = client::get(router.address, "/v1/models/a").await;
    assert_eq!(one.json(), json!({"id": "a", "x": 1}));
    let none = client::get(router.address, "/v1/models/no/such").await;
    assert_eq!((none.status.as_u16(), &none.json()["error"]["param"]), (404, &json!("model")));
    let tokens = client::ask(router.address, "/tokenize", &json!({"prompt": "x"})).await;
    assert_eq!(tokens.text(), r#"got {"prompt":"x"}"#);
    assert!(tokens.header("x-plumb-route").contains("reason=any_instance"));
    assert_eq!(client::get(router.address, "/v1/embeddings").await.status.as_u16(), 404);
    assert_eq!(client::get(router.address, CHAT).await.status.as_u16(), 405);
}
