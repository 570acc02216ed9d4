//! Instances that refuse, die at any byte, fall silent, or answer that they cannot.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plumb_protocol::sse::Decoder;
use plumb_router::{Settings, WhenPrefillFails};
use serde_json::{Value, json};
use support::client::{self, Answer, CHAT, COMPLETIONS};
use support::peer::{Peer, Reply};
use support::{Router, json, recorded, router, settings};

const V: &str = "vllm-0.32";

fn handed_over() -> Reply {
    Reply::json(200, &recorded(V, "completion_stream.prefill.response.json"))
}

fn stream() -> Vec<u8> {
    recorded(V, "completion_stream.decode.response.sse")
}

async fn ask(router: &Router) -> Answer {
    client::ask(router.address, COMPLETIONS, &json!({"prompt": "x", "stream": true})).await
}

fn route(answer: &Answer) -> &str {
    answer.header("x-plumb-route").split(';').next().unwrap()
}

fn reason(answer: &Answer) -> &str {
    answer.header("x-plumb-route").rsplit("reason=").next().unwrap()
}

#[tokio::test]
async fn another_prefill_instance_is_asked_when_one_dies_at_any_byte() {
    let whole = handed_over();
    for cut in [0, 1, 20, 100, whole.len() - 1] {
        let bad = Peer::always(whole.clone().cut(cut)).await;
        let mut good = Peer::always(whole.clone()).await;
        let decode = Peer::always(Reply::sse(&stream(), 100)).await;
        let router = router(settings(&[&bad, &good], &[&decode]), 3).await;
        // Whichever of the two is asked first.
        for _ in 0..2 {
            let got = ask(&router).await;
            assert_eq!((got.status.as_u16(), &got.body[..]), (200, &stream()[..]), "cut at {cut}");
            assert_eq!(route(&got), "pd");
            good.asked().await;
        }
    }
}

#[tokio::test]
async fn decode_computes_when_no_prefill_instance_can() {
    for bad in [Reply::json(500, b"{}"), Reply::json(503, b"{}"), handed_over().cut(30)] {
        let prefill = Peer::always(bad).await;
        let mut decode = Peer::always(Reply::sse(&stream(), 100)).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let got = ask(&router).await;
        assert_eq!((route(&got), reason(&got)), ("local", "prefill_failed"));
        assert_eq!(got.body, stream());
        assert!(json(&decode.asked().await.body).get("kv_transfer_params").is_none());
    }
}

#[tokio::test]
async fn a_dead_prefill_instance_is_not_asked_and_is_used_again_when_it_is_back() {
    let prefill = Peer::always(handed_over()).await;
    let address = prefill.address;
    let decode = Peer::always(Reply::sse(&stream(), 100)).await;
    let router = router(settings(&[&prefill], &[&decode]), 2).await;
    prefill.kill().await;
    let got = ask(&router).await;
    assert_eq!((route(&got), &got.body[..]), ("local", &stream()[..]));

    let restarted = json(&recorded(V, "completion_stream.prefill.response.json"));
    let mut restarted = restarted;
    restarted["kv_transfer_params"]["remote_engine_id"] = json!("another");
    let reply = Reply::json(200, restarted.to_string().as_bytes());
    let _back = Peer::start_at(address, move |_| reply.clone()).await;
    router.wait_metric(&format!("plumb_router_up{{instance=\"http://{address}\"}}"), 1.0).await;
    assert_eq!(route(&ask(&router).await), "pd");
}

#[tokio::test]
async fn tokens_are_asked_of_another_instance_when_one_dies() {
    let dies = Peer::always(Reply::json(200, b"never whole").cut(20)).await;
    let lives = Peer::always(Reply::json(200, b"tokens")).await;
    let router = router(settings(&[], &[&dies, &lives]), 2).await;
    for _ in 0..2 {
        let got = client::ask(router.address, "/tokenize", &json!({"prompt": "x"})).await;
        assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"tokens"[..]));
        assert!(got.header("x-plumb-route").contains(&lives.url()));
    }
}

#[tokio::test]
async fn by_policy_a_prefill_failure_is_an_error() {
    let prefill =
        Peer::always(Reply::json(500, &recorded(V, "err_decode_bad_remote.response.json"))).await;
    let mut decode = Peer::always(Reply::json(200, b"{}")).await;
    let fail = Settings {
        when_prefill_fails: Some(WhenPrefillFails::Fail),
        ..settings(&[&prefill], &[&decode])
    };
    let router = router(fail, 2).await;
    let got = ask(&router).await;
    assert_eq!(got.status.as_u16(), 500);
    assert_eq!(got.json()["error"]["type"], "InternalServerError", "the instance's own words");
    assert!(decode.saw_nothing_more());
    prefill.kill().await;
    let down = ask(&router).await;
    assert!(matches!(down.status.as_u16(), 502 | 503), "{down:?}");
    router.wait_metric("plumb_router_up{instance=\"x\"}", 0.0).await;
    assert_eq!(client::get(router.address, "/health").await.status.as_u16(), 503);
}

#[tokio::test]
async fn decode_that_dies_before_its_first_event_is_replaced() {
    let whole = Reply::sse(&stream(), 100);
    for cut in [0, 1, 50, 200] {
        let mut prefill = Peer::always(handed_over()).await;
        let bad = Peer::always(whole.clone().cut(cut)).await;
        let good = Peer::always(whole.clone()).await;
        let router = router(settings(&[&prefill], &[&bad, &good]), 3).await;
        for _ in 0..2 {
            let got = ask(&router).await;
            assert_eq!(got.body, stream(), "cut at {cut}");
        }
        // One of the two requests met the bad one: its lease was given back, and a new one made.
        let mut methods = Vec::new();
        for _ in 0..4 {
            methods.push(prefill.asked().await.method);
        }
        methods.sort_unstable();
        assert_eq!(methods, ["DELETE", "POST", "POST", "POST"]);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_in_an_error_event_at_any_byte() {
    let whole = Reply::sse(&stream(), 100);
    for cut in (400..whole.len() - 1).step_by(211).chain([whole.len() - 30]) {
        let prefill = Peer::always(handed_over()).await;
        let decode = Peer::always(whole.clone().cut(cut)).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let got = ask(&router).await;
        assert_eq!(got.status.as_u16(), 200);
        let mut decoder = Decoder::new(1 << 20);
        let events = decoder.push(&got.body).unwrap();
        assert!(decoder.is_between_events(), "half an event at {cut}");
        let (last, before) = events.split_last().unwrap();
        let error: Value = serde_json::from_str(&last.data).unwrap();
        assert_eq!(error["error"]["code"], 502, "cut at {cut}");
        for event in before {
            assert!(json(event.data.as_bytes()).get("choices").is_some(), "whole events before it");
        }
        assert!(!before.is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_or_falls_silent_is_not_a_silent_end() {
    let events = stream();
    let without_done = events.strip_suffix(b"data: [DONE]\n\n").expect("ends in [DONE]");
    for reply in [Reply::sse(without_done, 100), Reply::open_sse(without_done, 100)] {
        let prefill = Peer::always(handed_over()).await;
        let decode = Peer::always(reply).await;
        let brief = Settings { idle_timeout: Some(0.1), ..settings(&[&prefill], &[&decode]) };
        let router = router(brief, 2).await;
        let got = ask(&router).await;
        let rest = got.body.strip_prefix(without_done).expect("all of it");
        let error: Value = json(rest.strip_prefix(b"data: ").expect("an event"));
        assert_eq!(error["error"]["code"], 502);
    }
}

#[tokio::test]
async fn instances_that_never_answer_are_given_up() {
    let prefill = Peer::always(Reply::hang()).await;
    let decode = Peer::always(Reply::hang()).await;
    let brief = Settings {
        prefill_timeout: Some(0.1),
        first_byte_timeout: Some(0.1),
        ..settings(&[&prefill], &[&decode])
    };
    let router = router(brief, 2).await;
    let got = ask(&router).await;
    assert_eq!(got.status.as_u16(), 502);
    let message = got.json()["error"]["message"].to_string();
    assert!(message.contains(&prefill.url()) && message.contains(&decode.url()), "{message}");
    assert!(message.contains("did not answer in time"), "{message}");
}

#[tokio::test]
async fn a_transfer_that_fails_is_computed_by_decode() {
    let failed = recorded(V, "err_decode_bad_remote.response.json");
    let as_event = [b"data: ", failed.trim_ascii(), b"\n\ndata: [DONE]\n\n"].concat();
    for bad in [Reply::json(500, &failed), Reply::sse(&as_event, 1000)] {
        let mut prefill = Peer::always(handed_over()).await;
        let decode = Peer::start(move |request| {
            let pulls = json(&request.body).get("kv_transfer_params").is_some();
            if pulls { bad.clone() } else { Reply::sse(&stream(), 100) }
        })
        .await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let got = ask(&router).await;
        assert_eq!((route(&got), reason(&got)), ("local", "transfer_failed"));
        assert_eq!(got.body, stream());
        assert_eq!(prefill.asked().await.method, "POST");
        assert_eq!(prefill.asked().await.method, "DELETE");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_retried_up_to_its_last_byte() {
    let answer = recorded(V, "completion.decode.response.json");
    let prefill = Peer::always(handed_over()).await;
    let failed_once = Arc::new(AtomicBool::new(false));
    let script = |failed_once: Arc<AtomicBool>, answer: Vec<u8>| {
        move |_: &support::peer::Request| {
            let reply = Reply::json(200, &answer);
            let cut = reply.len() - 1;
            if failed_once.swap(true, Ordering::SeqCst) { reply } else { reply.cut(cut) }
        }
    };
    let a = Peer::start(script(failed_once.clone(), answer.clone())).await;
    let b = Peer::start(script(failed_once, answer.clone())).await;
    let router = router(settings(&[&prefill], &[&a, &b]), 3).await;
    let got = client::ask(router.address, CHAT, &json!({"messages": []})).await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &answer[..]));
}

#[tokio::test]
async fn a_prefill_answer_without_parameters_is_no_failure() {
    for answer in [recorded(V, "completion_short.agg.response.json"), b"not JSON".to_vec()] {
        let prefill = Peer::always(Reply::json(200, &answer)).await;
        let mut decode = Peer::always(Reply::sse(&stream(), 100)).await;
        let router = router(settings(&[&prefill], &[&decode]), 2).await;
        let got = ask(&router).await;
        assert_eq!((route(&got), reason(&got)), ("local", "nothing_kept"));
        assert!(json(&decode.asked().await.body).get("kv_transfer_params").is_none());
    }
}

#[tokio::test]
async fn with_nobody_to_decode_it_is_a_503_that_says_when_to_come_back() {
    let prefill = Peer::always(handed_over()).await;
    let decode = Peer::always(Reply::hang()).await;
    let settings = settings(&[&prefill], &[&decode]);
    decode.kill().await;
    let router = router(settings, 1).await;
    assert_eq!(client::get(router.address, "/health").await.status.as_u16(), 503);
    let got = ask(&router).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "1"));
    assert_eq!(got.json()["error"]["code"], 503);
}
