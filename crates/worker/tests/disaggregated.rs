//! Prefill here, decode there: the answer of one instance, by the protocol as vLLM speaks it.

mod common;

use common::client::Answer;
use common::{Instance, decode, decode_options, options, prefill, smollm, start, wait_for};
use plumb_kv::transfer::{PeerAddress, Transports};
use plumb_worker::{KvType, LoadFailure, WorkerOptions};
use serde_json::{Value, json};

const BLOCK: usize = 16;
const PULLED: &str = r#"plumb_prompt_tokens_total{source="pulled"}"#;

/// Token ids of which no two prompts share a first block.
fn prompt(length: usize, salt: usize) -> Vec<usize> {
    (0..length).map(|i| 300 + (length * 7919 + salt * 631 + i * 104_729) % 40_000).collect()
}

fn body(prompt: &[usize], stream: bool) -> Value {
    json!({"prompt": prompt, "max_tokens": 6, "temperature": 0, "stream": stream,
           "ignore_eos": true})
}

/// The prefill leg as a router sends it; its `kv_transfer_params`.
fn prefill_leg(path: &str, body: &Value) -> Value {
    prefill_leg_at(prefill(), path, body)
}

fn prefill_leg_at(prefill: &Instance, path: &str, body: &Value) -> Value {
    let mut leg = body.clone();
    leg["max_tokens"] = 1.into();
    leg["stream"] = false.into();
    leg["kv_transfer_params"] = json!({
        "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
        "remote_block_ids": null, "remote_host": null, "remote_port": null,
    });
    let answer = prefill.post(path, &leg);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["kv_transfer_params"].clone()
}

fn decode_leg(instance: &Instance, path: &str, body: &Value, params: Value) -> Answer {
    let mut leg = body.clone();
    leg["kv_transfer_params"] = params;
    instance.post(path, &leg)
}

/// Both legs on every length around two block boundaries; what was pulled is proved by the metric.
/// Instances of its own: other tests would be counted too.
fn same_answers(
    transport: Transports,
    kv_type: KvType,
    lengths: impl Iterator<Item = usize>,
) -> Instance {
    let prefill = start(WorkerOptions { kv_type, ..options(smollm()) });
    let kv_peers = vec![prefill.kv.clone()];
    let decode = start(WorkerOptions { kv_peers, kv_type, ..decode_options(transport) });
    for length in lengths {
        let body = body(&prompt(length, 1), length % 2 == 0);
        let params = prefill_leg_at(&prefill, "/v1/completions", &body);
        let pulled = decode.metric(PULLED);
        let answer = decode_leg(&decode, "/v1/completions", &body, params);
        let alone = prefill.complete(&body);
        assert_eq!(answer.text(0), alone.text(0), "{length} tokens");
        let pulled = decode.metric(PULLED) - pulled;
        assert_eq!(pulled as usize, (length - 1) / BLOCK * BLOCK, "{length} tokens");
    }
    wait_for("every lease to end with its pull", || {
        (prefill.metric("plumb_kv_leases") == 0.0).then_some(())
    });
    assert_eq!(prefill.metric("plumb_kv_leases_expired_total"), 0.0);
    decode
}

#[test]
fn through_shared_memory() {
    let lengths = (1..=2 * BLOCK + 2).chain([200]);
    let decode = same_answers(Transports::Shm, KvType::Int16, lengths);
    assert!(decode.metric(r#"plumb_kv_pulled_bytes_total{transport="shm"}"#) > 0.0);
    assert_eq!(decode.metric(r#"plumb_kv_pulled_bytes_total{transport="tcp"}"#), 0.0);
    assert!(decode.metric("vllm:nixl_bytes_transferred_total") > 0.0);
}

#[test]
fn over_tcp() {
    let lengths = (1..=2 * BLOCK + 2).chain([200]);
    let decode = same_answers(Transports::Tcp, KvType::Int16, lengths);
    assert!(decode.metric(r#"plumb_kv_pulled_bytes_total{transport="tcp"}"#) > 0.0);
}

#[test]
fn bytes_in_little_more_than_half_the_room() {
    let lengths = || [1, BLOCK + 1, 200].into_iter();
    for (transport, name) in [(Transports::Shm, "shm"), (Transports::Tcp, "tcp")] {
        let bytes = same_answers(transport, KvType::Int8, lengths());
        let pulled = format!(r#"plumb_kv_pulled_bytes_total{{transport="{name}"}}"#);
        // 30 layers, 3 heads: 64 bytes and a factor of 4 for K and as many for V, a token, in whole pages.
        let block = (BLOCK * 30 * 3 * 2 * (64 + 4)).next_multiple_of(4096);
        assert_eq!(bytes.metric(&pulled) as usize, (1 + 199 / BLOCK) * block);
    }
}

/// 16 bits cannot be read as bytes: the pull is refused with the reason, and the prompt computed here.
#[test]
fn instances_that_keep_kv_differently_do_not_exchange_it() {
    let decode = start(WorkerOptions { kv_type: KvType::Int8, ..decode_options(Transports::Auto) });
    let strict = start(WorkerOptions {
        kv_type: KvType::Int8,
        kv_load_failure: LoadFailure::Fail,
        ..decode_options(Transports::Auto)
    });
    let body = body(&prompt(40, 11), false);
    let params = prefill_leg("/v1/completions", &body);
    let failed = decode_leg(&strict, "/v1/completions", &body, params.clone());
    assert_eq!(failed.status, 500);
    assert!(failed.body.contains("dtype differs: ours int16, the peer's int8"), "{}", failed.body);
    let answer = decode_leg(&decode, "/v1/completions", &body, params);
    assert_eq!(answer.text(0), decode.complete(&body).text(0));
    assert_eq!(decode.metric(r#"plumb_kv_pulls_failed_total{reason="identity"}"#), 1.0);
    assert_eq!(decode.metric(PULLED), 0.0);
}

/// Every block is in decode's own cache: there is nothing to pull, and the lease must end.
#[test]
fn a_prompt_that_decode_knows_is_not_pulled() {
    let body = body(&prompt(40, 10), false);
    let alone = decode().complete(&body).text(0);
    let params = prefill_leg("/v1/completions", &body);
    let answer = decode_leg(decode(), "/v1/completions", &body, params.clone());
    assert_eq!(answer.text(0), alone);
    let lease = format!("/kv/leases/{}", params["remote_request_id"].as_str().unwrap());
    // Whoever is first ends it; decode's word may still be under way.
    wait_for("the lease to end", || (prefill().delete(&lease).status == 404).then_some(()));
}

#[test]
fn chats_and_streams() {
    for (stream, text) in [(false, "What is the capital of France?"), (true, "日本の首都は？ 🗼")]
    {
        let body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 12,
                          "temperature": 0, "stream": stream});
        let params = prefill_leg("/v1/chat/completions", &body);
        let answer = decode_leg(decode(), "/v1/chat/completions", &body, params);
        assert_eq!(answer.text(0), prefill().chat(&body).text(0));
    }
}

#[test]
fn two_answers_and_a_seed() {
    let mut body = body(&prompt(40, 3), false);
    body["n"] = 2.into();
    body["temperature"] = 1.0.into();
    body["seed"] = 7.into();
    let mut leg = body.clone();
    leg["n"] = 1.into();
    let params = prefill_leg("/v1/completions", &leg);
    let answer = decode_leg(decode(), "/v1/completions", &body, params);
    let alone = prefill().complete(&body);
    assert_ne!(answer.text(0), answer.text(1), "answers of one request differ");
    assert_eq!([answer.text(0), answer.text(1)], [alone.text(0), alone.text(1)]);
}

#[test]
fn params_have_the_recorded_keys() {
    let recorded: Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/nixl-protocol/vllm-0.32/completion.prefill.response.json"
    ))
    .unwrap();
    let params = prefill_leg("/v1/completions", &body(&prompt(50, 4), false));
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&params), keys(&recorded["kv_transfer_params"]));
    assert_eq!(params["remote_num_tokens"], 50);
    assert_eq!(params["remote_block_ids"][0].as_array().unwrap().len(), 4);
    let id = params["remote_request_id"].as_str().unwrap();
    assert_eq!(prefill().delete(&format!("/kv/leases/{id}")).status, 204);
    let again = prefill().delete(&format!("/kv/leases/{id}"));
    assert_eq!(again.status, 404, "a lease ends once");
    // By this the router knows it from a server that has no such path.
    assert_eq!(again.json()["error"]["param"], "remote_request_id");
}

#[test]
fn the_older_flat_form_is_read() {
    let body = body(&prompt(40, 5), false);
    let mut params = prefill_leg("/v1/completions", &body);
    params["remote_block_ids"] = params["remote_block_ids"][0].clone();
    for newer in ["remote_num_tokens", "transfer_mode", "dcp_size", "pp_size"] {
        params.as_object_mut().unwrap().remove(newer);
    }
    let decode = start(decode_options(Transports::Auto));
    let answer = decode_leg(&decode, "/v1/completions", &body, params);
    assert_eq!(answer.text(0), prefill().complete(&body).text(0));
    assert_eq!(decode.metric(PULLED), 32.0);
}

/// As recorded of vLLM (`err_decode_twice`): 200 and the same text, computed here.
#[test]
fn a_second_use_is_computed_here() {
    // Not the shared instance: the prompt must not be in its cache.
    let decode = start(decode_options(Transports::Auto));
    let body = body(&prompt(40, 6), false);
    let params = prefill_leg("/v1/completions", &body);
    let id = params["remote_request_id"].as_str().unwrap();
    assert_eq!(prefill().delete(&format!("/kv/leases/{id}")).status, 204);
    let answer = decode_leg(&decode, "/v1/completions", &body, params);
    assert_eq!(answer.text(0), prefill().complete(&body).text(0));
    assert_eq!(decode.metric(r#"plumb_prompt_tokens_total{source="computed"}"#), 40.0);
    assert_eq!(decode.metric(r#"plumb_kv_pulls_failed_total{reason="ended_lease"}"#), 1.0);
}

#[test]
fn missing_fields_are_computed_here() {
    let body = body(&prompt(40, 7), false);
    let alone = prefill().complete(&body).text(0);
    let params = prefill_leg("/v1/completions", &body);
    for field in ["remote_block_ids", "remote_engine_id", "remote_host", "remote_port"] {
        let mut params = params.clone();
        params[field] = Value::Null;
        assert_eq!(decode_leg(decode(), "/v1/completions", &body, params).text(0), alone);
    }
    let id = params["remote_request_id"].as_str().unwrap();
    assert_eq!(prefill().delete(&format!("/kv/leases/{id}")).status, 204);
}

#[test]
fn a_failed_pull_is_an_error_where_policy_says_so() {
    let nobody = PeerAddress { host: "127.0.0.1".into(), port: 9 };
    let strict = start(WorkerOptions {
        kv_load_failure: LoadFailure::Fail,
        kv_peers: vec![nobody],
        ..decode_options(Transports::Auto)
    });
    let body = body(&prompt(40, 8), false);
    let mut params = prefill_leg("/v1/completions", &body);
    let stranger = decode_leg(&strict, "/v1/completions", &body, params.clone());
    assert_eq!(stranger.status, 500, "a peer that was not given: {}", stranger.body);
    params["remote_port"] = 9.into();
    for stream in [false, true] {
        let mut body = body.clone();
        body["stream"] = stream.into();
        let failed = decode_leg(&strict, "/v1/completions", &body, params.clone());
        assert_eq!(failed.status, 500, "{}", failed.body);
        assert_eq!(failed.json()["error"]["type"], "InternalServerError");
    }
    assert_eq!(strict.metric(r#"plumb_kv_blocks{state="used"}"#), 0.0);
    let id = params["remote_request_id"].as_str().unwrap();
    assert_eq!(prefill().delete(&format!("/kv/leases/{id}")).status, 204);
}

#[test]
fn nobody_pulls_and_the_lease_ends() {
    let short = start(WorkerOptions { kv_lease_seconds: 1, ..options(smollm()) });
    let mut leg = body(&prompt(40, 9), false);
    leg["max_tokens"] = 1.into();
    leg["kv_transfer_params"] = json!({"do_remote_decode": true, "do_remote_prefill": false});
    assert_eq!(short.complete(&leg).status, 200);
    assert_eq!(short.metric("plumb_kv_leases"), 1.0);
    wait_for("the lease's end", || (short.metric("plumb_kv_leases") == 0.0).then_some(()));
    assert_eq!(short.metric("plumb_kv_leases_expired_total"), 1.0);
    assert_eq!(short.metric("vllm:nixl_num_kv_expired_reqs_total"), 1.0);
    assert_eq!(short.metric(r#"plumb_kv_blocks{state="used"}"#), 0.0);
}
