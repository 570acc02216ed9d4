//! A prefill instance's answer and a client's request, of any bytes: legs are JSON again, and what
//! is read of the parameters is what is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_protocol::body::Body;
use plumb_protocol::kv_transfer::{self, RemotePrefill, Request};
use plumb_protocol::legs;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Ok(body) = Body::parse(input) else { return };
    let leg = legs::prefill(&body);
    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&leg).is_ok());
    let Some(params) = kv_transfer::of_answer(&body) else { return };
    let leg = legs::decode(&body, params);
    let leg = Body::parse(&leg).expect("a leg is a body");
    assert_eq!(leg.get("kv_transfer_params").map(|p| p.get()), Some(params.get()));
    let value = serde_json::from_str::<Value>(params.get()).ok();
    if let Request::Pull(remote) = Request::read(value.as_ref()) {
        assert_eq!(RemotePrefill::from_map(&remote.to_map()), Ok(*remote));
    }
});
