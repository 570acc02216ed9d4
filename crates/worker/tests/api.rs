//! The API as clients of OpenAI and vLLM know it, on a real model.

mod common;

use common::{CONTEXT, decode, gemma, options, prefill, smollm, start};
use serde_json::{Value, json};

fn recorded(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/fixtures/nixl-protocol/vllm-0.32/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Names and nesting, without values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().map(|(k, v)| (k.clone(), shape(v))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(list) => list.first().map(shape).into_iter().collect(),
        Value::Null => Value::Null,
        _ => "value".into(),
    }
}

fn question() -> Value {
    json!([{"role": "user", "content": "What is the capital of France? Answer in one sentence."}])
}

#[test]
fn bodies_have_the_recorded_shape() {
    let chat = prefill().chat(&json!({"messages": question(), "max_tokens": 3})).json();
    assert_eq!(shape(&chat), shape(&recorded("chat.decode.response.json")));
    let completion = prefill().complete(&json!({"prompt": "One", "max_tokens": 3})).json();
    assert_eq!(shape(&completion), shape(&recorded("completion.decode.response.json")));
    assert_eq!(completion["usage"]["completion_tokens"], 3);
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
}

#[test]
fn errors_are_vllms() {
    let unknown = prefill().chat(&json!({"model": "nope", "messages": question()}));
    assert_eq!(
        (unknown.status, unknown.json()),
        (404, recorded("err_unknown_model.response.json"))
    );
    let long = prefill().complete(&json!({"prompt": vec![300; 4097], "max_tokens": 1}));
    let mut expected = recorded("err_too_long.response.json");
    let message = expected["error"]["message"].as_str().unwrap();
    expected["error"]["message"] = message.replace("4096", &CONTEXT.to_string()).into();
    assert_eq!((long.status, long.json()), (400, expected));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (field, value) in [
        ("response_format", json!({"type": "json_object"})),
        ("tool_choice", json!("required")),
        ("tools", json!([{"type": "function", "function": {"name": "f", "parameters": {}}}])),
        ("n", json!(0)),
        ("temperature", json!("hot")),
        ("max_tokens", json!(-1)),
        ("logit_bias", json!({"x": 1})),
        ("top_logprobs", json!(3)),
        ("stop", json!([""])),
        ("reasoning_effort", json!("high")),
        ("web_search_options", json!({})),
        ("verbosity", json!("low")),
        ("audio", json!({})),
    ] {
        let answer = prefill().chat(&json!({"messages": question(), field: value}));
        assert_eq!(answer.status, 400, "{field}: {}", answer.body);
        assert_eq!(answer.json()["error"]["param"], field, "{}", answer.body);
    }
    for garbage in ["", "[]", "{", "\"messages\"", "{\"messages\": 1}", "\u{0}"] {
        let answer = prefill().post_text("/v1/chat/completions", garbage);
        assert_eq!(answer.status, 400, "{garbage:?}");
        assert_eq!(answer.json()["error"]["type"], "BadRequestError");
    }
    let fine = json!({"messages": question(), "max_tokens": 1, "user": "me", "house": [1, 2],
                      "store": true, "service_tier": "auto", "reasoning_effort": "none",
                      "tools": [{"type": "function", "function": {"name": "f"}}],
                      "tool_choice": "none"});
    assert_eq!(prefill().chat(&fine).status, 200, "unknown fields are ignored");
}

/// Words for 15 MB, of which no token can be part of an answer: refused before they are tokens.
#[test]
fn a_text_that_cannot_fit_is_refused_at_once() {
    let text = "word ".repeat(3_000_000);
    let chat = json!([{"role": "user", "content": &text}]);
    let asked = std::time::Instant::now();
    for answer in [
        prefill().complete(&json!({"prompt": &text})),
        prefill().complete(&json!({"prompt": ["fits", &text]})),
        prefill().chat(&json!({"messages": chat})),
    ] {
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["param"], "input_tokens", "{}", answer.body);
        let context = format!("maximum context length is {CONTEXT} tokens");
        assert!(answer.body.contains(&context), "{}", answer.body);
    }
    assert!(asked.elapsed().as_secs() < 10, "{:?}: they were tokenized", asked.elapsed());
}

#[test]
fn more_answers_than_there_are_places_is_no_matter_of_waiting() {
    let answer = prefill().complete(&json!({"prompt": vec!["a"; 250], "n": 8}));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("n")));
}

/// OpenAI's form of an assistant that only called a tool has no content.
#[test]
fn a_history_of_tool_calls_can_be_read() {
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    for assistant in [
        json!({"role": "assistant", "content": null, "tool_calls": [&call]}),
        json!({"role": "assistant", "tool_calls": [&call]}),
    ] {
        let messages = json!([{"role": "user", "content": "Call f."}, assistant,
                              {"role": "tool", "tool_call_id": "1", "content": "done"}]);
        let answer = prefill().chat(&json!({"messages": messages, "max_tokens": 1}));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn a_stream_has_role_text_usage_and_end() {
    let mut body = json!({"messages": question(), "max_tokens": 8, "temperature": 0});
    let whole = prefill().chat(&body);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let stream = prefill().chat(&body);
    assert_eq!(stream.text(0), whole.text(0));
    let chunks = stream.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let last = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(last["finish_reason"], whole.json()["choices"][0]["finish_reason"]);
    let usage = &chunks[chunks.len() - 1]["usage"];
    assert_eq!(usage["completion_tokens"], whole.json()["usage"]["completion_tokens"]);
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_shown() {
    let body = json!({"messages": question(), "max_tokens": 20, "temperature": 0});
    let whole = prefill().chat(&body).text(0);
    // From the middle of one word to the middle of another: never one token.
    let (at, _) = whole.match_indices(' ').nth(1).unwrap();
    let stop = &whole[at - 2..at + 3];
    for stream in [false, true] {
        for keep in [false, true] {
            let mut body = body.clone();
            body["stop"] = json!([stop]);
            body["stream"] = stream.into();
            body["include_stop_str_in_output"] = keep.into();
            let end = if keep { at + 3 } else { at - 2 };
            assert_eq!(prefill().chat(&body).text(0), whole[..end], "{stop:?}");
        }
    }
    let mut stopped = body;
    stopped["stop"] = stop.into();
    let choice = prefill().chat(&stopped).json()["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!(stop)));
}

#[test]
fn an_answer_that_a_stop_string_ended_is_counted() {
    let own = start(options(smollm()));
    let body =
        json!({"prompt": "One, two, three,", "max_tokens": 30, "temperature": 0, "stop": ","});
    assert_eq!(own.complete(&body).json()["choices"][0]["stop_reason"], ",");
    let ended = r#"vllm:request_success_total{finished_reason="stop"} 1"#;
    common::wait_for("it is counted", || own.get("/metrics").body.contains(ended).then_some(()));
    assert_eq!(own.metric("plumb_answer_seconds_count"), 1.0);
}

#[test]
fn stop_tokens_and_minimum() {
    let body = json!({"prompt": "One, two, three,", "max_tokens": 6, "temperature": 0,
                      "return_token_ids": true});
    let ids = prefill().complete(&body).json()["choices"][0]["token_ids"].clone();
    let third = &ids[2];
    let mut stopping = body.clone();
    stopping["stop_token_ids"] = json!([third]);
    let choice = prefill().complete(&stopping).json()["choices"][0].clone();
    assert_eq!(choice["stop_reason"], *third);
    let first_at = ids.as_array().unwrap().iter().position(|id| id == third).unwrap();
    assert_eq!(choice["token_ids"].as_array().unwrap().len(), first_at + 1);
    stopping["min_tokens"] = 5.into();
    let choice = prefill().complete(&stopping).json()["choices"][0].clone();
    assert!(choice["token_ids"].as_array().unwrap().len() >= 5, "{choice}");
}

#[test]
fn log_probabilities_add_up() {
    let body = json!({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0,
                      "logprobs": 2, "echo": true});
    let answer = prefill().complete(&body).json();
    let choice = &answer["choices"][0];
    let (text, logprobs) = (choice["text"].as_str().unwrap(), &choice["logprobs"]);
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    assert_eq!(list("tokens").len(), 5 + 4);
    assert_eq!(list("token_logprobs")[0], Value::Null);
    for ((token, offset), logprob) in
        list("tokens").iter().zip(list("text_offset")).zip(list("token_logprobs")).skip(1)
    {
        let offset = usize::try_from(offset.as_u64().unwrap()).unwrap();
        assert!(text[offset..].starts_with(token.as_str().unwrap()), "{token} at {offset}");
        assert!(logprob.as_f64().unwrap() <= 0.0);
    }
    // Greedy takes the likeliest.
    let best = list("top_logprobs")[5].as_object().unwrap().iter().next().unwrap().1.clone();
    assert_eq!(list("token_logprobs")[5], best);
    let chat = json!({"messages": question(), "max_tokens": 2, "logprobs": true,
                      "top_logprobs": 3, "temperature": 0});
    let content = prefill().chat(&chat).json()["choices"][0]["logprobs"]["content"].clone();
    assert_eq!(content.as_array().unwrap().len(), 2);
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(content[0]["top_logprobs"][0]["logprob"], content[0]["logprob"]);
}

#[test]
fn many_prompts_and_many_answers() {
    let body = json!({"prompt": ["One, two,", "A, b, c,"], "n": 2, "max_tokens": 5, "seed": 5});
    let all = prefill().complete(&body);
    let mut alone = body.clone();
    alone["prompt"] = "A, b, c,".into();
    let alone = prefill().complete(&alone);
    assert_eq!([all.text(2), all.text(3)], [alone.text(0), alone.text(1)]);
    assert_eq!(all.json()["usage"]["completion_tokens"], 20);
    let mut stream = body;
    stream["stream"] = true.into();
    let stream = prefill().complete(&stream);
    for index in 0..4 {
        assert_eq!(stream.text(index), all.text(index));
    }
}

#[test]
fn tokens_and_back() {
    let text = "Größe 🗼 ok";
    let tokens = decode().post("/tokenize", &json!({"prompt": text})).json();
    assert_eq!(tokens["max_model_len"], CONTEXT);
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let back = decode().post("/detokenize", &json!({"tokens": tokens["tokens"]})).json();
    assert_eq!(back["prompt"], text);
    let chat = decode().post("/tokenize", &json!({"messages": question()})).json();
    let used = decode().chat(&json!({"messages": question(), "max_tokens": 1})).json();
    assert_eq!(chat["count"], used["usage"]["prompt_tokens"]);
}

#[test]
fn plain_paths() {
    assert_eq!(prefill().get("/health").status, 200);
    let models = prefill().get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(models["data"][0]["max_model_len"], CONTEXT);
    assert_eq!(prefill().get("/v1/models/tiny").json(), models["data"][0]);
    assert_eq!(prefill().get("/v1/models/nope").status, 404);
    assert_eq!(prefill().get("/nowhere").status, 404);
    assert_eq!(prefill().get("/v1/completions").status, 405);
    assert!(prefill().metric("plumb_rss_bytes") > 1e7);
}

#[test]
fn a_base_model_completes_and_says_why_it_cannot_chat() {
    let base = start(options(gemma()));
    let chat = base.chat(&json!({"messages": question()}));
    assert_eq!(chat.status, 400);
    assert!(chat.json()["error"]["message"].as_str().unwrap().contains("chat template"));
    let body = json!({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0});
    let answer = base.complete(&body);
    assert!(!answer.text(0).trim().is_empty());
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 6, "a start token and five words");
}
