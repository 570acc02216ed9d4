//! The typed bodies against what a real vLLM sent: same keys, same nulls, nothing lost.

use std::path::Path;

use plumb_protocol::openai::{ChatChunk, ChatResponse, CompletionChunk, CompletionResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/nixl-protocol/vllm-0.32")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads and writes again; the result must be the same JSON, key for key.
fn survives<T: DeserializeOwned + Serialize>(text: &str) {
    let before: Value = serde_json::from_str(text).unwrap();
    let typed: T = serde_json::from_str(text).unwrap();
    let after = serde_json::to_value(&typed).unwrap();
    assert_eq!(before, after);
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&before), keys(&after), "keys come in vLLM's order");
}

fn events(name: &str) -> Vec<String> {
    recorded(name)
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(str::to_owned)
        .collect()
}

#[test]
fn whole_answers() {
    survives::<ChatResponse>(&recorded("chat.prefill.response.json"));
    survives::<ChatResponse>(&recorded("chat.decode.response.json"));
    survives::<CompletionResponse>(&recorded("completion.prefill.response.json"));
    survives::<CompletionResponse>(&recorded("err_prefill_n2.response.json"));
}

#[test]
fn chunks() {
    for event in events("completion_stream.decode.response.sse") {
        survives::<CompletionChunk>(&event);
    }
    for event in events("chat_stream.decode.response.sse") {
        survives::<ChatChunk>(&event);
    }
}
