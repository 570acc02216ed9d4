//! Fields that would change the answer and that this engine does not honour: refused by name, never
//! silently ignored. All other unknown fields are ignored, as vLLM does.

use plumb_protocol::ApiError;
use plumb_protocol::openai::Extra;
use serde_json::Value;

/// A field, the values of it that ask for nothing, and what to do instead.
struct Field {
    name: &'static str,
    asks_nothing: fn(&Value) -> bool,
    advice: &'static str,
}

const fn field(
    name: &'static str,
    asks_nothing: fn(&Value) -> bool,
    advice: &'static str,
) -> Field {
    Field { name, asks_nothing, advice }
}

const PLAIN: &str = "this engine generates plain text only";
const NO_BIAS: &str = "use `logit_bias` instead";

const FIELDS: &[Field] = &[
    field("response_format", is_text_format, PLAIN),
    field("structured_outputs", nothing, PLAIN),
    field("guided_json", Value::is_null, PLAIN),
    field("guided_regex", nothing, PLAIN),
    field("guided_choice", nothing, PLAIN),
    field("guided_grammar", nothing, PLAIN),
    field("functions", nothing, "use `tools`"),
    field("function_call", is_none_choice, "use `tools`"),
    field("use_beam_search", falsy, "use `n` with a temperature"),
    field("logits_processors", nothing, NO_BIAS),
    field("bad_words", nothing, NO_BIAS),
    field("allowed_token_ids", nothing, NO_BIAS),
    field("truncate_prompt_tokens", nothing, "shorten the prompt before sending it"),
    field("prompt_logprobs", nothing, "use `echo` with `logprobs` on /v1/completions"),
    field("logprob_token_ids", nothing, "use `top_logprobs`"),
    field("return_tokens_as_token_ids", falsy, "use `return_token_ids`"),
    field("prompt_embeds", nothing, "send text or token ids"),
    field("chat_template", nothing, "the template comes from the model's file"),
    field("documents", nothing, "put them into the messages"),
    field("modalities", is_text_only, PLAIN),
    field("audio", Value::is_null, PLAIN),
    // An empty object asks for a search with the defaults.
    field("web_search_options", Value::is_null, "nothing is searched for"),
    field("verbosity", is_medium, "say in the messages how long the answer should be"),
    field("detokenize", truthy, "use `return_token_ids`, and leave the text"),
    field("thinking_token_budget", nothing, "use `max_tokens`"),
];

/// # Errors
/// 400 naming the first field that cannot be honoured.
pub fn check(extra: &Extra) -> Result<(), ApiError> {
    for Field { name, asks_nothing, advice } in FIELDS {
        if extra.get(*name).is_some_and(|value| !asks_nothing(value)) {
            return Err(refuse(name, advice));
        }
    }
    for name in extra.keys() {
        tracing::debug!(field = name, "ignored: unknown");
    }
    Ok(())
}

/// 400 for a field that is not supported.
pub fn refuse(name: &str, advice: &str) -> ApiError {
    ApiError::bad_request(format!("`{name}` is not supported here: {advice}.")).param(name)
}

fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn falsy(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}

fn truthy(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(true))
}

fn is_medium(value: &Value) -> bool {
    value.is_null() || value == "medium"
}

fn is_text_format(value: &Value) -> bool {
    value.is_null() || value["type"] == "text"
}

fn is_none_choice(value: &Value) -> bool {
    value.is_null() || value == "none"
}

fn is_text_only(value: &Value) -> bool {
    value.as_array().map_or(value.is_null(), |list| list.iter().all(|mode| mode == "text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(extra: Value) -> Result<(), Option<String>> {
        check(extra.as_object().unwrap()).map_err(|e| e.param)
    }

    #[test]
    fn what_changes_the_answer_is_refused_by_name() {
        for (name, value) in [
            ("response_format", json!({"type": "json_object"})),
            ("use_beam_search", json!(true)),
            ("bad_words", json!(["x"])),
            ("truncate_prompt_tokens", json!(-1)),
            ("modalities", json!(["text", "audio"])),
            ("web_search_options", json!({})),
            ("verbosity", json!("low")),
            ("detokenize", json!(false)),
            ("guided_json", json!({})),
        ] {
            assert_eq!(outcome(json!({ name: value })), Err(Some(name.into())));
        }
    }

    #[test]
    fn what_asks_nothing_and_what_nobody_knows_passes() {
        let extra = json!({
            "response_format": {"type": "text"}, "use_beam_search": false, "bad_words": [],
            "modalities": ["text"], "function_call": "none", "functions": null, "house": 3,
            "verbosity": "medium", "web_search_options": null, "store": true, "prediction": {},
        });
        assert_eq!(outcome(extra), Ok(()));
    }
}
