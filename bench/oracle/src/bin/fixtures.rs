//! `fixtures OUT NAME=FILE…`: what llama.cpp answers, for tests to compare with.
//!
//! Reads `texts.json`, `chats.json` and `passage.txt` in OUT; writes beside them
//! - `tokens.MODEL.json`: every text's tokens, plain and with special tokens; the end tokens; a
//!   digest of every token's bytes;
//! - `chats.MODEL.json`: conversations rendered by llama.cpp's own renderer;
//! - `logits.MODEL.jsonl`: a line about the run, then a line a position of `passage.txt`, run
//!   teacher-forced in one window: `[log-probability of the next token, id, logit, id, logit, …]`
//!   with the ten likeliest tokens, best first.

use anyhow::{Context as _, Result};
use plumb_oracle::{Input, Model, Settings};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// How many tokens of every position are kept.
const TOP: usize = 10;

fn main() -> Result<()> {
    let usage = "usage: fixtures OUT NAME=FILE…";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (out, models) = arguments.split_first().context(usage)?;
    for model in models {
        let (name, file) = model.split_once('=').context(usage)?;
        answer(Path::new(out), name, Path::new(file))?;
    }
    Ok(())
}

fn answer(out: &Path, name: &str, file: &Path) -> Result<()> {
    let model = Model::load(file, false)?;
    // The vocabulary is the same in whatever type the weights are.
    if !name.ends_with(".f32") {
        write(out, &format!("tokens.{name}.json"), &tokens(&model, out)?)?;
    }
    if name == "smollm2" {
        write(out, &format!("chats.{name}.json"), &chats(&model, out)?)?;
    }
    write(out, &format!("logits.{name}.jsonl"), &logits(&model, out)?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(folder.join(name), text)?;
    println!("{name}: {} bytes", text.len());
    Ok(())
}

fn read(folder: &Path, name: &str) -> Result<String> {
    fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())
}

fn tokens(model: &Model, folder: &Path) -> Result<String> {
    let texts: Vec<String> = serde_json::from_str(&read(folder, "texts.json")?)?;
    let mut pieces = Sha256::new();
    for id in 0..model.vocab_len() as u32 {
        let piece = model.piece(id, true)?;
        pieces.update((piece.len() as u32).to_le_bytes());
        pieces.update(&piece);
    }
    let ends: Vec<u32> = (0..model.vocab_len() as u32).filter(|&id| model.is_end(id)).collect();
    let digest: String = pieces.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut out =
        format!("{{\"pieces_sha256\":\"{digest}\",\n\"ends\":{},\n\"texts\":[\n", json!(ends));
    for (i, text) in texts.iter().enumerate() {
        let plain = model.tokenize(text, false, false)?;
        let special = model.tokenize(text, true, true)?;
        let comma = if i + 1 < texts.len() { "," } else { "" };
        writeln!(out, "{}{comma}", json!({"plain": plain, "special": special}))?;
    }
    out.push_str("]}\n");
    Ok(out)
}

fn chats(model: &Model, folder: &Path) -> Result<String> {
    let chats: Vec<Vec<Value>> = serde_json::from_str(&read(folder, "chats.json")?)?;
    let mut rendered = Vec::new();
    for chat in &chats {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages: Vec<_> =
            chat.iter().map(|m| (text(&m["role"]), text(&m["content"]))).collect();
        rendered.push([model.chat(&messages, false)?, model.chat(&messages, true)?]);
    }
    Ok(serde_json::to_string_pretty(&rendered)? + "\n")
}

fn logits(model: &Model, folder: &Path) -> Result<String> {
    let tokens = model.tokenize(&read(folder, "passage.txt")?, true, false)?;
    let settings = Settings {
        threads: 2,
        context: tokens.len() as u32 + 8,
        sequences: 1,
        batch: tokens.len() as u32,
    };
    let mut session = model.session(settings)?;
    let input = |(position, &token)| Input { token, position, sequence: 0, logits: true };
    session.decode(&tokens.iter().enumerate().map(input).collect::<Vec<_>>())?;
    let (mut lines, mut loss) = (String::new(), 0.0);
    for position in 0..tokens.len() {
        let row = session.logits(position)?;
        let next = tokens.get(position + 1).map(|&next| log_probability(row, next));
        loss -= next.unwrap_or(0.0);
        writeln!(lines, "{}", line(row, next))?;
    }
    let perplexity = (loss / (tokens.len() - 1) as f64).exp();
    let about = json!({
        "settings": "one window, f16 KV, no flash attention, CPU",
        "llama_cpp_sys_2": "0.1.161",
        "perplexity": perplexity,
        "tokens": tokens,
    });
    Ok(format!("{about}\n{lines}"))
}

fn log_probability(row: &[f32], token: u32) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(row[token as usize] - max) - sum.ln()
}

fn line(row: &[f32], next: Option<f64>) -> String {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let best_first =
        |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    ids.select_nth_unstable_by(TOP, best_first);
    ids.truncate(TOP);
    ids.sort_by(best_first);
    let mut out = next.map_or("[null".to_owned(), |next| format!("[{next:.5}"));
    for id in ids {
        let _ = write!(out, ",{id},{:.4}", row[id as usize]);
    }
    out + "]"
}
