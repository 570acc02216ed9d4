//! What a chat request must be before anything is computed for it.

use plumb_protocol::ApiError;
use plumb_protocol::openai::ChatRequest;
use serde_json::Value;

use crate::api::body::check_model;
use crate::api::refused::{self, refuse};
use crate::api::sampling::{self, MAX_LOGPROBS};
use crate::instance::Instance;

/// # Errors
/// 404 for an unknown model, 400 naming the field for all else.
pub fn check(request: &ChatRequest, instance: &Instance) -> Result<(), ApiError> {
    check_model(instance, request.model.as_deref())?;
    refused::check(&request.extra)?;
    sampling::validate(&request.sampling, instance.bounds())?;
    logprobs(request)?;
    tool_choice(request.tool_choice.as_ref())?;
    let one_call_at_most = request.extra.get("parallel_tool_calls") == Some(&Value::Bool(false));
    if one_call_at_most && request.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
        return Err(refuse("parallel_tool_calls", "calls are not counted, they stay in the text"));
    }
    if request.continue_final_message == Some(true) {
        return Err(refuse("continue_final_message", "send a new message"));
    }
    if request.echo == Some(true) {
        return Err(refuse("echo", "the messages are yours already"));
    }
    messages(&request.messages)
}

fn logprobs(request: &ChatRequest) -> Result<(), ApiError> {
    let Some(top) = request.top_logprobs.filter(|&top| top > 0) else { return Ok(()) };
    if request.logprobs != Some(true) {
        let message = "`top_logprobs` needs `logprobs` to be true.";
        return Err(ApiError::bad_request(message).param("top_logprobs"));
    }
    if top > MAX_LOGPROBS {
        let message = format!("`top_logprobs` must be at most {MAX_LOGPROBS}.");
        return Err(ApiError::bad_request(message).param("top_logprobs"));
    }
    Ok(())
}

fn tool_choice(choice: Option<&Value>) -> Result<(), ApiError> {
    match choice {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(choice)) if choice == "none" || choice == "auto" => Ok(()),
        Some(_) => Err(refuse(
            "tool_choice",
            "a call cannot be forced; use \"auto\", and read the call from the text",
        )),
    }
}

/// Objects with a role; their content text, or parts of text.
///
/// # Errors
/// 400 naming the message.
pub fn messages(messages: &[Value]) -> Result<(), ApiError> {
    let bad = |why: String| ApiError::bad_request(why).param("messages");
    if messages.is_empty() {
        return Err(bad("`messages` must hold at least one message.".into()));
    }
    for (at, message) in messages.iter().enumerate() {
        if !message["role"].is_string() {
            return Err(bad(format!("`messages[{at}]` needs a `role`.")));
        }
        match &message["content"] {
            Value::Null | Value::String(_) => {}
            Value::Array(parts) => {
                if let Some(kind) = parts.iter().find_map(not_text) {
                    return Err(bad(format!(
                        "`messages[{at}]` has content of type {kind}; this model takes text only."
                    )));
                }
            }
            _ => return Err(bad(format!("`messages[{at}].content` must be text."))),
        }
    }
    Ok(())
}

/// The type of a content part that is not text.
fn not_text(part: &Value) -> Option<String> {
    let is_text = part["type"] == "text" && part["text"].is_string();
    (!is_text).then(|| part["type"].to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_text() {
        let check = |value: Value| messages(value.as_array().unwrap()).map_err(|e| e.message);
        assert!(check(json!([{"role": "user", "content": "hi"}])).is_ok());
        assert!(check(json!([{"role": "assistant", "content": null}])).is_ok());
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
        assert!(check(parts).is_ok());
        for bad in [
            json!([]),
            json!(["hi"]),
            json!([{"content": "hi"}]),
            json!([{"role": "user", "content": 3}]),
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tool_call_cannot_be_forced() {
        for choice in [json!("required"), json!({"type": "function"})] {
            let refused = tool_choice(Some(&choice)).unwrap_err();
            assert_eq!(refused.param.as_deref(), Some("tool_choice"));
        }
        for choice in [json!("none"), json!("auto"), Value::Null] {
            assert_eq!(tool_choice(Some(&choice)), Ok(()));
        }
    }
}
