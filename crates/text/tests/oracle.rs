//! The same tokens and prompts as llama.cpp, on real models. Fixtures: `make oracle`.

mod common;

use common::{GEMMA3, SMOLLM2, fixture, model, tokenizer};
use plumb_text::{ChatTemplate, Special};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn json(name: &str) -> Value {
    serde_json::from_str(&fixture(name)).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn tokens_agree(name: &str, answers: &str) {
    let tokenizer = tokenizer(name);
    let (texts, answers) = (json("texts.json"), json(answers));
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), ids(&answers["ends"]), "end tokens");
    let (texts, tables) = (texts.as_array().unwrap(), answers["texts"].as_array().unwrap());
    assert_eq!(texts.len(), tables.len());
    for (text, answer) in texts.iter().zip(tables) {
        let text = text.as_str().unwrap();
        let plain = tokenizer.encode(text, Special { add: false, parse: false });
        assert_eq!(plain, ids(&answer["plain"]), "plain: {text:?}");
        let special = tokenizer.encode(text, Special { add: true, parse: true });
        assert_eq!(special, ids(&answer["special"]), "special: {text:?}");
    }
    let mut pieces = Sha256::new();
    for id in 0..tokenizer.len() as u32 {
        let piece = tokenizer.token_bytes(id);
        pieces.update((piece.len() as u32).to_le_bytes());
        pieces.update(piece);
    }
    let digest: String = pieces.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, answers["pieces_sha256"], "what tokens decode to");
}

#[test]
fn smollm2_texts_become_the_same_tokens() {
    tokens_agree(SMOLLM2, "tokens.smollm2.json");
}

#[test]
fn gemma3_texts_become_the_same_tokens() {
    tokens_agree(GEMMA3, "tokens.gemma3.json");
}

/// The long text of the logits' fixture, which is in many languages.
#[test]
fn the_passage_becomes_the_same_tokens() {
    let passage = fixture("passage.txt");
    for (name, answers) in [(SMOLLM2, "logits.smollm2.jsonl"), (GEMMA3, "logits.gemma3.jsonl")] {
        let about: Value = serde_json::from_str(fixture(answers).lines().next().unwrap()).unwrap();
        let tokens = tokenizer(name).encode(&passage, Special { add: true, parse: false });
        assert_eq!(tokens, ids(&about["tokens"]), "{name}");
    }
}

#[test]
fn smollm2_conversations_become_the_same_prompts() {
    let template = ChatTemplate::from_gguf(&model(SMOLLM2)).unwrap().unwrap();
    let (chats, answers) = (json("chats.json"), json("chats.smollm2.json"));
    for (chat, answer) in chats.as_array().unwrap().iter().zip(answers.as_array().unwrap()) {
        let messages = chat.as_array().unwrap();
        for (i, assistant) in [false, true].into_iter().enumerate() {
            let prompt = template.render(messages, None, assistant, None).unwrap();
            assert_eq!(prompt, answer[i].as_str().unwrap());
        }
    }
}

#[test]
fn a_base_model_has_no_template() {
    assert!(ChatTemplate::from_gguf(&model(GEMMA3)).unwrap().is_none());
}
