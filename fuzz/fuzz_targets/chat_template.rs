//! Any template, any messages: compiling and rendering end, without a panic. A template and a JSON
//! list of messages, apart by a NUL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_text::ChatTemplate;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (template, messages) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(template) = ChatTemplate::new(template, None, "<s>".into(), "</s>".into()) else {
        return;
    };
    let messages: Value = serde_json::from_str(messages)
        .unwrap_or_else(|_| json!([{"role": "user", "content": "hello"}]));
    let messages = messages.as_array().cloned().unwrap_or_default();
    let _ = template.render(&messages, None, true, None);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let _ = template.render(&messages, Some(&tools), false, None);
});
