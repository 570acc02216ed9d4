//! Message contents: one string, or a list of parts. Templates are written for the one or the
//! other; which, they show by what they do with a probe.

use super::ChatTemplate;
use serde_json::{Value as Json, json};

const PROBE: &str = "a text that no template says of its own";

/// Whether a template prints a content that is a string. Only one that prints parts alone does not.
pub(super) fn takes_strings(template: &ChatTemplate) -> bool {
    let prints = |content: Json| {
        let message = [json!({"role": "user", "content": content})];
        template.render_as_is(&message, None, true, None).is_ok_and(|text| text.contains(PROBE))
    };
    prints(json!(PROBE)) || !prints(json!([{"type": "text", "text": PROBE}]))
}

/// A message as the template wants it.
pub(super) fn adapt(message: &Json, takes_strings: bool) -> Json {
    let mut message = message.clone();
    match message.get_mut("content") {
        Some(content @ Json::Array(_)) if takes_strings => {
            if let Some(text) = joined(content) {
                *content = Json::String(text);
            }
        }
        Some(content @ Json::String(_)) if !takes_strings => {
            *content = json!([{"type": "text", "text": content.take()}]);
        }
        _ => {}
    }
    message
}

/// All text parts in one string; `None` if there is a part that is no text.
fn joined(content: &Json) -> Option<String> {
    let texts = content.as_array()?.iter().map(|part| match part {
        Json::String(text) => Some(text.as_str()),
        part if part["type"] == "text" => part["text"].as_str(),
        _ => None,
    });
    Some(texts.collect::<Option<Vec<_>>>()?.join("\n"))
}
