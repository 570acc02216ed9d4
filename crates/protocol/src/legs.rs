//! The two bodies that one disaggregated request becomes, by the field table of vLLM's protocol
//! over `NixlConnector` (recorded in `tests/fixtures/nixl-protocol`).

use serde_json::value::RawValue;

use crate::body::Body;

/// What the prefill leg asks for: compute, keep the blocks, and say where they are.
const ASK: &str = concat!(
    r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"#,
    r#""remote_block_ids":null,"remote_host":null,"remote_port":null}"#
);

/// The body for the prefill instance: one token, not streamed, its KV blocks kept for a peer.
///
/// Fields that one token cannot satisfy are left off; all others travel as they came.
pub fn prefill(client: &Body<'_>) -> Vec<u8> {
    let size: usize = client.fields().map(|(n, v)| n.len() + v.get().len() + 8).sum();
    let mut out = Object::with_capacity(size + ASK.len() + 64);
    for (name, value) in client.fields() {
        match name {
            // `best_of` is at least `n`, which becomes 1.
            "stream" | "max_tokens" | "stream_options" | "min_tokens" | "best_of"
            | "kv_transfer_params" => {}
            "max_completion_tokens" | "n" => out.field(name, "1"),
            "tool_choice" if value.get() == r#""required""# => {}
            "response_format" if is_strict(value) => {}
            _ => out.field(name, value.get()),
        }
    }
    out.field("max_tokens", "1");
    out.field("stream", "false");
    out.field("kv_transfer_params", ASK);
    out.close()
}

/// The body for the decode instance: the client's own, and the prefill instance's
/// `kv_transfer_params` verbatim.
pub fn decode(client: &Body<'_>, kv_transfer_params: &RawValue) -> Vec<u8> {
    let size: usize = client.fields().map(|(n, v)| n.len() + v.get().len() + 8).sum();
    let mut out = Object::with_capacity(size + kv_transfer_params.get().len() + 64);
    for (name, value) in client.fields().filter(|(name, _)| *name != "kv_transfer_params") {
        out.field(name, value.get());
    }
    out.field("kv_transfer_params", kv_transfer_params.get());
    out.close()
}

/// A format that the finished text must satisfy; `text` asks for nothing.
fn is_strict(format: &RawValue) -> bool {
    Body::parse(format.get().as_bytes())
        .is_ok_and(|format| format.string("type").is_some_and(|kind| kind != "text"))
}

/// Writes a JSON object from names and ready JSON values.
struct Object(Vec<u8>);

impl Object {
    fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Self(out)
    }

    fn field(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
        self.0.push(b':');
        self.0.extend_from_slice(value.as_bytes());
    }

    fn close(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
