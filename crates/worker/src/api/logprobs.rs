//! Scored tokens in the two shapes that OpenAI has for log-probabilities.

use plumb_protocol::openai::{ChatLogprob, ChatLogprobs, CompletionLogprobs, TopLogprob};
use plumb_text::Tokenizer;
use serde_json::{Map, Value};

use crate::generation::Scored;

/// The chat shape.
pub fn chat(tokenizer: &Tokenizer, scored: &[Scored]) -> ChatLogprobs {
    let content = scored.iter().map(|s| chat_token(tokenizer, s)).collect();
    ChatLogprobs { content }
}

fn chat_token(tokenizer: &Tokenizer, scored: &Scored) -> ChatLogprob {
    let top = |&(token, logprob): &(u32, f32)| TopLogprob {
        token: text(tokenizer, token),
        logprob,
        bytes: Some(tokenizer.token_bytes(token).to_vec()),
    };
    ChatLogprob {
        token: text(tokenizer, scored.token),
        logprob: scored.logprob,
        bytes: Some(tokenizer.token_bytes(scored.token).to_vec()),
        top_logprobs: scored.top.iter().map(top).collect(),
    }
}

/// Appends a token to the completions' shape; `scored` is none for the first of a prompt.
pub fn push_completion(
    list: &mut CompletionLogprobs,
    tokenizer: &Tokenizer,
    token: u32,
    scored: Option<&Scored>,
    offset: usize,
) {
    list.text_offset.push(offset);
    list.tokens.push(text(tokenizer, token));
    list.token_logprobs.push(scored.map(|s| s.logprob));
    list.top_logprobs.push(scored.map(|s| alternatives(tokenizer, s)));
}

fn alternatives(tokenizer: &Tokenizer, scored: &Scored) -> Map<String, Value> {
    let mut map = Map::new();
    for &(token, logprob) in &scored.top {
        map.insert(text(tokenizer, token), number(logprob));
    }
    map.entry(text(tokenizer, scored.token)).or_insert_with(|| number(scored.logprob));
    map
}

/// As short as an `f32` is written, not with the digits that an `f64` would show.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A token's text; a token that is part of a character shows replacement characters.
pub fn text(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned()
}
