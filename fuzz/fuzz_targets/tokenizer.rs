//! Any text, any vocabulary: encoding never panics, every token exists, and where the vocabulary
//! has all bytes, decoding gives the text back. The first byte chooses the kind; up to the first
//! NUL come the vocabulary's words, then the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_fuzz::open;
use plumb_gguf::writer::GgufWriter;
use plumb_text::{Special, Tokenizer};
use std::sync::Arc;

const PRE: [&str; 8] =
    ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o", "deepseek-v3"];

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let cut = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
    let words: Vec<&[u8]> = rest[..cut].split(|&byte| byte == b' ').collect();
    let text = String::from_utf8_lossy(&rest[cut..]);
    let file = if kind % 2 == 0 { spm(&words) } else { bpe(kind, &words) };
    let Ok(tokenizer) = open(&file.to_bytes())
        .map_err(drop)
        .and_then(|gguf| Tokenizer::from_gguf(&gguf).map_err(drop))
    else {
        return;
    };
    let tokenizer = Arc::new(tokenizer);
    for parse in [false, true] {
        let ids = tokenizer.encode(&text, Special { add: false, parse });
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        let decoded = tokenizer.decode(&ids, true);
        if kind % 2 == 1 {
            assert_eq!(decoded, text);
        }
    }
});

/// GPT-2's characters for the bytes, in the order of the bytes.
fn byte_characters() -> Vec<String> {
    let mut others = 0x100..;
    (0u32..256)
        .map(|byte| match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte,
            _ => others.next().unwrap(),
        })
        .map(|code| char::from_u32(code).unwrap().to_string())
        .collect()
}

/// Words that are pairs of characters become merges.
fn bpe(kind: u8, words: &[&[u8]]) -> GgufWriter {
    let mut tokens = byte_characters();
    let mut merges = Vec::new();
    for word in words {
        let word = String::from_utf8_lossy(word);
        let middle = word.char_indices().nth(word.chars().count() / 2);
        let (left, right) = word.split_at(middle.map_or(0, |(at, _)| at));
        merges.push(format!("{left} {right}"));
        if !tokens.iter().any(|token| *token == word) {
            tokens.push(word.into_owned());
        }
    }
    let mut writer = GgufWriter::new("llama");
    writer.string("tokenizer.ggml.model", "gpt2");
    writer.string("tokenizer.ggml.pre", PRE[usize::from(kind / 2) % PRE.len()]);
    writer.strings("tokenizer.ggml.tokens", &tokens).strings("tokenizer.ggml.merges", &merges);
    writer
}

/// Words in the order of their scores; the byte tokens are there or not.
fn spm(words: &[&[u8]]) -> GgufWriter {
    let scores: Vec<f32> = (0..words.len()).map(|i| -(i as f32)).collect();
    let types: Vec<i32> = words.iter().map(|word| i32::from(word.len() as u8 % 7)).collect();
    let mut writer = GgufWriter::new("llama");
    writer.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", words);
    writer.f32s("tokenizer.ggml.scores", &scores).i32s("tokenizer.ggml.token_type", &types);
    writer
}
