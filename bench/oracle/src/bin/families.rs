//! `families FOLDER`: llama.cpp's logits for every small model of random weights in FOLDER, written
//! beside them as `logits.json`: the tokens of one text, and all logits of some of its positions.

use anyhow::{Context as _, Result};
use plumb_oracle::{Input, Model, Settings};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const TOKENS: usize = 60;
/// Before, at and past the windows of Gemma, and the last one.
const POSITIONS: [usize; 5] = [0, 11, 12, 31, TOKENS - 1];

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: families FOLDER")?);
    let mut models: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    models.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    models.sort();
    let mut answers = Map::new();
    for path in models {
        let name = path.file_stem().context("a file name")?.to_string_lossy().into_owned();
        answers.insert(name, answer(&Model::load(&path, false)?)?);
    }
    let text = serde_json::to_string(&answers)?.replace("],\"", "],\n\"").replace("},", "},\n");
    std::fs::write(folder.join("logits.json"), text + "\n")?;
    Ok(())
}

fn answer(model: &Model) -> Result<Value> {
    let vocab = model.vocab_len();
    let tokens: Vec<u32> = (0..TOKENS).map(|i| ((i * i * 7 + i * 3 + 5) % vocab) as u32).collect();
    let settings = Settings { threads: 1, context: 64, sequences: 1, batch: TOKENS as u32 };
    let mut session = model.session(settings)?;
    let input = |(position, &token)| Input { token, position, sequence: 0, logits: true };
    session.decode(&tokens.iter().enumerate().map(input).collect::<Vec<_>>())?;
    let mut rows = Vec::new();
    for position in POSITIONS {
        let row = session.logits(position)?;
        // Five decimals are far below the tolerance of the test.
        rows.push(row.iter().map(|&x| (f64::from(x) * 1e5).round() / 1e5).collect::<Vec<_>>());
    }
    Ok(json!({"tokens": tokens, "positions": POSITIONS, "logits": rows}))
}
