//! The bodies recorded from real vLLM servers, read and written by us.

use std::fs;
use std::path::PathBuf;

use plumb_protocol::body::Body;
use plumb_protocol::kv_transfer::{self, RemotePrefill, Request};
use plumb_protocol::legs;
use serde_json::{Value, json};

const VERSIONS: [&str; 2] = ["vllm-0.13", "vllm-0.32"];
const CASES: [&str; 5] =
    ["chat", "chat_stream", "completion", "completion_short", "completion_stream"];

fn recorded(version: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/nixl-protocol")
        .join(version)
        .join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The client's own request: the decode leg without what prefill handed over.
fn client_request(version: &str) -> Value {
    let mut request = json_of(&recorded(version, "completion_short.decode.request.json"));
    request.as_object_mut().unwrap().remove("kv_transfer_params");
    request
}

#[test]
fn legs_are_those_that_vllm_was_sent() {
    for version in VERSIONS {
        let client = client_request(version).to_string();
        let client = Body::parse(client.as_bytes()).unwrap();
        assert_eq!(
            json_of(&legs::prefill(&client)),
            json_of(&recorded(version, "completion_short.prefill.request.json")),
        );

        let answer = recorded(version, "completion_short.prefill.response.json");
        let answer = Body::parse(&answer).unwrap();
        let params = kv_transfer::of_answer(&answer).unwrap();
        assert_eq!(
            json_of(&legs::decode(&client, params)),
            json_of(&recorded(version, "completion_short.decode.request.json")),
        );
    }
}

#[test]
fn what_vllm_hands_over_is_read_and_written_whole() {
    for (version, case) in VERSIONS.iter().flat_map(|v| CASES.iter().map(move |c| (v, c))) {
        let answer = json_of(&recorded(version, &format!("{case}.prefill.response.json")));
        let params = &answer["kv_transfer_params"];
        let Request::Pull(remote) = Request::read(Some(params)) else { panic!("{version} {case}") };
        assert_eq!(remote.port, 5600);
        assert_eq!(remote.block_ids.len(), 1);
        assert!(!remote.block_ids[0].is_empty());
        assert_eq!(remote.other, kv_transfer::Params::new());
        if *version == "vllm-0.32" {
            assert_eq!(Value::Object(remote.to_map()), *params, "{case}");
            assert_eq!(remote.num_tokens.map(u64::from), answer["usage"]["prompt_tokens"].as_u64());
        }
    }
}

#[test]
fn what_a_worker_is_asked_is_told_apart() {
    let asked = json_of(&recorded("vllm-0.32", "completion_short.prefill.request.json"));
    assert_eq!(Request::read(asked.get("kv_transfer_params")), Request::Keep);
    assert_eq!(Request::read(None), Request::Local);
    assert_eq!(Request::read(Some(&Value::Null)), Request::Local);

    let full = json_of(&recorded("vllm-0.32", "completion_short.decode.request.json"));
    for field in
        ["remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port"]
    {
        for bad in [None, Some(Value::Null), Some(json!({"x": 1})), Some(json!([[[1]]]))] {
            let mut params = full["kv_transfer_params"].clone();
            let map = params.as_object_mut().unwrap();
            match bad {
                None => drop(map.remove(field)),
                Some(bad) => drop(map.insert(field.into(), bad)),
            }
            assert_eq!(Request::read(Some(&params)), Request::Incomplete(field));
        }
    }
}

#[test]
fn keys_that_we_do_not_know_are_kept() {
    let mut params = json_of(&recorded("vllm-0.32", "completion_short.decode.request.json"))
        ["kv_transfer_params"]
        .clone();
    params["first_token_ids"] = json!([7]);
    params["a_later_key"] = json!({"deep": [1.5, null]});
    let Request::Pull(remote) = Request::read(Some(&params)) else { panic!("not a pull") };
    assert_eq!(remote.first_token_ids, Some(vec![7]));
    assert_eq!(Value::Object(RemotePrefill::to_map(&remote)), params);
}

#[test]
fn no_parameters_where_prefill_hands_over_none() {
    for (version, case) in VERSIONS.iter().flat_map(|v| CASES.iter().map(move |c| (v, c))) {
        if case.ends_with("stream") {
            continue;
        }
        let answer = recorded(version, &format!("{case}.decode.response.json"));
        assert!(kv_transfer::of_answer(&Body::parse(&answer).unwrap()).is_none());
    }
}

#[test]
fn the_prefill_leg_follows_the_field_table() {
    let client = json!({
        "model": "m", "messages": [{"role": "user", "content": "caf\u{e9} \"\u{1f600}\""}],
        "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 99,
        "min_tokens": 5, "n": 4, "best_of": 4, "tool_choice": "required", "tools": [{"type": "function"}],
        "response_format": {"type": "json_schema", "json_schema": {"strict": true}},
        "temperature": 0.7, "ein \"Feld\"": {"unknown": [1, 2.50, null]},
    })
    .to_string();
    let leg = json_of(&legs::prefill(&Body::parse(client.as_bytes()).unwrap()));
    let expected = json!({
        "model": "m", "messages": [{"role": "user", "content": "caf\u{e9} \"\u{1f600}\""}],
        "stream": false, "max_tokens": 1, "max_completion_tokens": 1, "n": 1,
        "tools": [{"type": "function"}], "temperature": 0.7,
        "ein \"Feld\"": {"unknown": [1, 2.50, null]},
        "kv_transfer_params": {
            "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
            "remote_block_ids": null, "remote_host": null, "remote_port": null,
        },
    });
    assert_eq!(leg, expected);
}

#[test]
fn what_one_token_can_satisfy_stays_on_the_prefill_leg() {
    let client = json!({"tool_choice": "auto", "response_format": {"type": "text"}}).to_string();
    let leg = json_of(&legs::prefill(&Body::parse(client.as_bytes()).unwrap()));
    assert_eq!(leg["tool_choice"], "auto");
    assert_eq!(leg["response_format"], json!({"type": "text"}));
}

#[test]
fn an_empty_request_becomes_two_legs() {
    let client = Body::parse(b"{}").unwrap();
    assert_eq!(json_of(&legs::prefill(&client))["max_tokens"], 1);
    let params = serde_json::value::to_raw_value(&json!({"k": 1})).unwrap();
    assert_eq!(legs::decode(&client, &params), br#"{"kv_transfer_params":{"k":1}}"#);
}
