//! Any bytes as a client's request: refused, or split into two legs that say what the client said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_protocol::body::{Body, MAX_FIELDS};
use plumb_protocol::legs;
use plumb_protocol::openai::{
    ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, parse,
};
use serde_json::Value;
use serde_json::value::RawValue;

/// What the router writes anew on the prefill leg, or leaves off.
const REWRITTEN: [&str; 10] = [
    "stream",
    "max_tokens",
    "stream_options",
    "min_tokens",
    "best_of",
    "kv_transfer_params",
    "max_completion_tokens",
    "n",
    "tool_choice",
    "response_format",
];

fuzz_target!(|bytes: &[u8]| {
    // The instances' readers: no panic, whatever comes.
    drop(parse::<ChatRequest>(bytes));
    drop(parse::<CompletionRequest>(bytes));
    drop(parse::<TokenizeRequest>(bytes));
    drop(parse::<DetokenizeRequest>(bytes));

    let Ok(client) = Body::parse(bytes) else { return };
    if client.fields().count() > MAX_FIELDS - 8 {
        return;
    }
    let params: &RawValue = serde_json::from_str(r#"{"k":[1]}"#).unwrap();
    let (prefill, decode) = (legs::prefill(&client), legs::decode(&client, params));
    let prefill = Body::parse(&prefill).expect("a leg is a JSON object");
    let decode = Body::parse(&decode).expect("a leg is a JSON object");
    assert_eq!(decode.get("kv_transfer_params").map(RawValue::get), Some(params.get()));
    assert_eq!(prefill.get("max_tokens").map(RawValue::get), Some("1"));
    assert!(prefill.get("kv_transfer_params").is_some_and(|asked| {
        serde_json::from_str::<Value>(asked.get()).unwrap()["do_remote_decode"] == true
    }));
    for (name, value) in client.fields() {
        let kept = |leg: &Body<'_>| leg.get(name).map(RawValue::get) == Some(value.get());
        assert!(name == "kv_transfer_params" || kept(&decode), "{name} is lost");
        assert!(REWRITTEN.contains(&name) || kept(&prefill), "{name} is lost");
    }
});
