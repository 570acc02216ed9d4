//! The shared sampling fields: checked, and turned into what the engine takes.

use plumb_engine::sampling::Params;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{OneOrMany, SamplingFields};
use plumb_text::Tokenizer;

use super::refused::refuse;
use crate::generation::AnswerLimits;
use crate::output::TextOptions;

/// Stop strings in one request: each is looked for after every token.
const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 4096;
/// OpenAI's bound on alternatives a token.
pub const MAX_LOGPROBS: u32 = 20;

/// What the checks must know of the model.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The most answers at once.
    pub max_n: u32,
}

/// # Errors
/// 400 naming the first field that is out of range.
pub fn validate(fields: &SamplingFields, bounds: Bounds) -> Result<(), ApiError> {
    within("temperature", fields.temperature, 0.0, f32::MAX)?;
    within("top_p", fields.top_p, f32::MIN_POSITIVE, 1.0)?;
    within("min_p", fields.min_p, 0.0, 1.0)?;
    within("presence_penalty", fields.presence_penalty, -2.0, 2.0)?;
    within("frequency_penalty", fields.frequency_penalty, -2.0, 2.0)?;
    within("repetition_penalty", fields.repetition_penalty, f32::MIN_POSITIVE, f32::MAX)?;
    if fields.top_k.is_some_and(|k| k < -1) {
        return Err(out_of_range("top_k", "−1 or 0 for all, or a number of tokens"));
    }
    if fields.n.is_some_and(|n| n == 0 || n > bounds.max_n) {
        return Err(out_of_range("n", &format!("1 to {}", bounds.max_n)));
    }
    stops(fields)?;
    token_ids(fields, bounds.vocab)?;
    if fields.stream_options.is_some() && fields.stream != Some(true) {
        let message = "Stream options can only be defined when `stream=True`.";
        return Err(ApiError::bad_request(message).param("stream_options"));
    }
    if fields.stream_options.is_some_and(|o| o.continuous_usage_stats == Some(true)) {
        return Err(refuse("stream_options", "use `include_usage`"));
    }
    Ok(())
}

fn within(name: &str, value: Option<f32>, low: f32, high: f32) -> Result<(), ApiError> {
    match value {
        Some(value) if !(low..=high).contains(&value) => {
            let range = match (low, high) {
                (l, f32::MAX) if l > 0.0 => "a finite number over 0".to_owned(),
                (_, f32::MAX) => "a finite number from 0 up".to_owned(),
                (l, h) if l > 0.0 => format!("over 0 and at most {h}"),
                (l, h) => format!("{l} to {h}"),
            };
            Err(out_of_range(name, &format!("{range}, not {value}")))
        }
        _ => Ok(()),
    }
}

fn out_of_range(name: &str, range: &str) -> ApiError {
    ApiError::bad_request(format!("`{name}` must be {range}.")).param(name)
}

fn stops(fields: &SamplingFields) -> Result<(), ApiError> {
    let stops = match &fields.stop {
        None => return Ok(()),
        Some(OneOrMany::One(stop)) => std::slice::from_ref(stop),
        Some(OneOrMany::Many(stops)) => stops.as_slice(),
    };
    if stops.len() > MAX_STOPS || stops.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        let range = format!("at most {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes");
        return Err(out_of_range("stop", &range));
    }
    Ok(())
}

fn token_ids(fields: &SamplingFields, vocab: usize) -> Result<(), ApiError> {
    let known = |id: u32| (id as usize) < vocab;
    if fields.stop_token_ids.iter().flatten().any(|&id| !known(id)) {
        return Err(out_of_range("stop_token_ids", &format!("token ids under {vocab}")));
    }
    for (id, bias) in fields.logit_bias.iter().flatten() {
        if !id.parse().is_ok_and(known) {
            let range = format!("numbers by token id (0 to {}), not {id:?}", vocab - 1);
            return Err(out_of_range("logit_bias", &range));
        }
        if !(-100.0..=100.0).contains(bias) {
            return Err(out_of_range("logit_bias", &format!("−100 to 100, not {bias}")));
        }
    }
    Ok(())
}

/// The engine's parameters. `logprobs`: alternatives a token, if log-probabilities are wanted.
pub fn params(
    fields: &SamplingFields,
    limits: &AnswerLimits,
    logprobs: Option<u32>,
    tokenizer: &Tokenizer,
) -> Params {
    let ends = tokenizer.ends().filter(|_| !limits.ignore_eos);
    Params {
        temperature: fields.temperature.unwrap_or(1.0),
        top_k: usize::try_from(fields.top_k.unwrap_or(0)).unwrap_or(0),
        top_p: fields.top_p.unwrap_or(1.0),
        min_p: fields.min_p.unwrap_or(0.0),
        repetition_penalty: fields.repetition_penalty.unwrap_or(1.0),
        presence_penalty: fields.presence_penalty.unwrap_or(0.0),
        frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
        seed: fields.seed.map(i64::cast_unsigned),
        logit_bias: fields
            .logit_bias
            .iter()
            .flatten()
            .filter_map(|(id, &bias)| Some((id.parse().ok()?, bias)))
            .collect(),
        min_tokens: limits.min_tokens,
        stop_tokens: ends.chain(limits.stop_ids.iter().copied()).collect(),
        logprobs: logprobs.map(|n| n as usize),
    }
}

/// When the answer ends. `room`: tokens that the context leaves; `wanted`: what the client asked
/// for; `default`: what it gets if it did not.
///
/// # Errors
/// 400 if the numbers contradict one another.
pub fn limits(
    fields: &SamplingFields,
    wanted: Option<(&str, u32)>,
    default: usize,
    room: usize,
    context: usize,
) -> Result<AnswerLimits, ApiError> {
    let max_tokens = match wanted {
        None => default.min(room),
        Some((name, 0)) => return Err(out_of_range(name, "at least 1")),
        Some((name, n)) if n as usize > room => {
            let message = format!(
                "`{name}` is too large: {n}. This model's maximum context length is {context} \
                 tokens and your prompt takes {}, which leaves {room}.",
                context - room
            );
            return Err(ApiError::bad_request(message).param(name));
        }
        Some((_, n)) => n as usize,
    };
    let min_tokens = fields.min_tokens.unwrap_or(0) as usize;
    if min_tokens > max_tokens {
        let range = format!("at most the {max_tokens} tokens of the answer, not {min_tokens}");
        return Err(out_of_range("min_tokens", &range));
    }
    Ok(AnswerLimits {
        max_tokens,
        min_tokens,
        ignore_eos: fields.ignore_eos == Some(true),
        stop_ids: fields.stop_token_ids.clone().unwrap_or_default(),
    })
}

/// How the answer's tokens become text.
pub fn text_options(fields: &SamplingFields) -> TextOptions {
    TextOptions {
        stops: fields.stop.clone().map(OneOrMany::into_vec).unwrap_or_default(),
        keep_stop: fields.include_stop_str_in_output == Some(true),
        skip_special: fields.skip_special_tokens != Some(false),
        min_tokens: fields.min_tokens.unwrap_or(0) as usize,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BOUNDS: Bounds = Bounds { vocab: 100, max_n: 8 };

    fn fault(fields: Value) -> Option<String> {
        let fields: SamplingFields = serde_json::from_value(fields).unwrap();
        validate(&fields, BOUNDS).err().map(|e| e.param.expect("names the field"))
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        for fields in [
            json!({"temperature": -0.1}),
            json!({"top_p": 0.0}),
            json!({"top_p": 1.1}),
            json!({"top_k": -2}),
            json!({"min_p": 2}),
            json!({"presence_penalty": 2.1}),
            json!({"frequency_penalty": -2.1}),
            json!({"repetition_penalty": 0}),
            json!({"n": 0}),
            json!({"n": 9}),
            json!({"stop": ""}),
            json!({"stop": ["a", ""]}),
            json!({"stop_token_ids": [100]}),
            json!({"logit_bias": {"100": 1}}),
            json!({"logit_bias": {"one": 1}}),
            json!({"logit_bias": {"1": 100.5}}),
            json!({"stream_options": {"include_usage": true}}),
        ] {
            let name = fields.as_object().unwrap().keys().next().unwrap().clone();
            assert_eq!(fault(fields), Some(name));
        }
    }

    #[test]
    fn the_edges_pass() {
        let fields = json!({
            "temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "presence_penalty": -2,
            "frequency_penalty": 2, "repetition_penalty": 0.1, "n": 8, "stop": ["a"],
            "logit_bias": {"99": -100}, "stop_token_ids": [0], "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(fault(fields), None);
    }

    #[test]
    fn an_answer_fits_the_context() {
        let fields = SamplingFields::default();
        let max = |wanted, room| limits(&fields, wanted, 16, room, 100).map(|l| l.max_tokens);
        assert_eq!(max(None, 40), Ok(16));
        assert_eq!(max(None, 4), Ok(4));
        assert_eq!(max(Some(("max_tokens", 40)), 40), Ok(40));
        let message = max(Some(("max_tokens", 41)), 40).unwrap_err().message;
        assert!(message.contains("41") && message.contains("60") && message.contains("100"));
        assert_eq!(max(Some(("max_tokens", 0)), 40).unwrap_err().status, 400);
    }

    #[test]
    fn min_tokens_over_max_tokens_is_refused() {
        let fields = SamplingFields { min_tokens: Some(5), ..SamplingFields::default() };
        let refused = limits(&fields, Some(("max_tokens", 4)), 16, 40, 100).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("min_tokens"));
    }
}
