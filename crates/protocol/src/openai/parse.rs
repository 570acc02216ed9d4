//! From a request's bytes to its type, with errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest};

/// Why a body is not a request, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadBody {
    /// The field at fault, where one is.
    pub param: Option<String>,
    /// What is wrong with it.
    pub message: String,
}

/// A request type that [`parse`] can make.
pub trait RequestBody: DeserializeOwned {
    /// A value for each field without a default, to try the others one by one.
    const REQUIRED: &'static [(&'static str, &'static str)];
}

impl RequestBody for ChatRequest {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("messages", "[]")];
}

impl RequestBody for CompletionRequest {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("prompt", "\"\"")];
}

impl RequestBody for TokenizeRequest {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[];
}

impl RequestBody for DetokenizeRequest {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("tokens", "[]")];
}

/// Bytes of a body in which the field at fault is looked for.
const MAX_BLAMED: usize = 1 << 20;

/// Reads a body as a `T`.
///
/// # Errors
/// [`BadBody`] if it is not a JSON object of that shape.
pub fn parse<T: RequestBody>(body: &[u8]) -> Result<T, BadBody> {
    // Most bodies are right. What is wrong with one, by name, is found in a way that takes a hundred
    // times its bytes: not for large ones. That way too lets the last one count of a name that
    // comes twice, and takes 3.0 for 3.
    if body.trim_ascii_start().starts_with(b"{") {
        match serde_json::from_slice(body) {
            Ok(request) => return Ok(request),
            Err(e) if body.len() > MAX_BLAMED => {
                return Err(BadBody { param: None, message: format!("the body is wrong: {e}") });
            }
            Err(_) => {}
        }
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(body).map_err(|e| BadBody {
        param: None,
        message: format!("the body is not a JSON object: {e}"),
    })?;
    fields.values_mut().for_each(make_whole);
    for (name, _) in T::REQUIRED {
        if !fields.contains_key(*name) {
            return Err(BadBody {
                param: Some((*name).into()),
                message: format!("`{name}` is required"),
            });
        }
    }
    match serde_json::from_value(Value::Object(fields.clone())) {
        Ok(request) => Ok(request),
        Err(whole) => Err(blame::<T>(fields, &whole)),
    }
}

/// Some clients know floats only, and vLLM takes a whole one for an integer.
fn make_whole(value: &mut Value) {
    // Beyond this a float is no one integer any more.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Value::Number(number) = value
        && let Some(float) = number.as_f64()
        && number.is_f64()
        && float.fract() == 0.0
        && float.abs() < EXACT
    {
        *value = Value::from(float as i64);
    }
}

/// Finds the field by trying each alone: serde loses its name inside flattened structs.
fn blame<T: RequestBody>(fields: Map<String, Value>, whole: &serde_json::Error) -> BadBody {
    for (name, value) in fields {
        let mut alone = Map::new();
        for (required, filler) in T::REQUIRED {
            alone.insert((*required).into(), serde_json::from_str(filler).unwrap_or_default());
        }
        alone.insert(name.clone(), value);
        if let Err(e) = serde_json::from_value::<T>(Value::Object(alone)) {
            return BadBody { message: format!("`{name}`: {e}"), param: Some(name) };
        }
    }
    BadBody { param: None, message: whole.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_at_fault() {
        let body = br#"{"prompt":"a","model":"m","temperature":"hot"}"#;
        let bad = parse::<CompletionRequest>(body).unwrap_err();
        assert_eq!(bad.param.as_deref(), Some("temperature"));
        assert!(bad.message.contains("hot"), "{bad}");
    }

    #[test]
    fn names_a_missing_field() {
        let bad = parse::<ChatRequest>(b"{}").unwrap_err();
        assert_eq!(bad.param.as_deref(), Some("messages"));
    }

    #[test]
    fn a_list_is_no_request() {
        assert!(parse::<ChatRequest>(b"[1]").unwrap_err().message.contains("JSON object"));
    }

    #[test]
    fn a_large_body_that_is_wrong_is_still_refused() {
        let body = format!("{{\"prompt\":[{}\"a\"]}}", "1,".repeat(MAX_BLAMED));
        let bad = parse::<CompletionRequest>(body.as_bytes()).unwrap_err();
        assert_eq!(bad.param, None);
        assert!(bad.message.contains("expected a string, a list"), "{bad}");
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_one_counts() {
        let body = br#" {"prompt":"a","seed":1,"prompt":"b","seed":2}"#;
        let request = parse::<CompletionRequest>(body).unwrap();
        assert_eq!(request.prompt, super::super::Prompt::Text("b".into()));
        assert_eq!(request.sampling.seed, Some(2));
        assert!(parse::<DetokenizeRequest>(br#"["m",[1]]"#).is_err(), "a list of the fields");
    }

    #[test]
    fn a_whole_float_is_an_integer_and_another_is_none() {
        let body = br#"{"prompt":"a","max_tokens":3.0,"seed":-7.0,"temperature":1.0}"#;
        let request = parse::<CompletionRequest>(body).unwrap();
        assert_eq!((request.max_tokens, request.sampling.seed), (Some(3), Some(-7)));
        assert_eq!(request.sampling.temperature, Some(1.0));
        for wrong in ["3.5", "-3.0", "1e300", "9007199254740993.0"] {
            let body = format!(r#"{{"prompt":"a","max_tokens":{wrong}}}"#);
            let bad = parse::<CompletionRequest>(body.as_bytes()).unwrap_err();
            assert_eq!(bad.param.as_deref(), Some("max_tokens"), "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_are_kept() {
        let request: ChatRequest =
            parse(br#"{"messages":[],"seed":7,"house":{"rooms":3}}"#).unwrap();
        assert_eq!(request.sampling.seed, Some(7));
        assert_eq!(request.extra["house"]["rooms"], 3);
        assert!(!request.extra.contains_key("seed"), "a known field is no extra");
    }

    #[test]
    fn prompts_come_in_four_forms() {
        use super::super::Prompt;
        for (json, want) in [
            (r#""a""#, Prompt::Text("a".into())),
            (r#"["a","b"]"#, Prompt::Texts(vec!["a".into(), "b".into()])),
            ("[1,2]", Prompt::Tokens(vec![1, 2])),
            ("[[1],[2]]", Prompt::TokenLists(vec![vec![1], vec![2]])),
        ] {
            let request: CompletionRequest =
                parse(format!(r#"{{"prompt":{json}}}"#).as_bytes()).unwrap();
            assert_eq!(request.prompt, want);
        }
        let bad = parse::<CompletionRequest>(br#"{"prompt":[1,"a"]}"#).unwrap_err();
        assert_eq!(bad.param.as_deref(), Some("prompt"));
    }
}
