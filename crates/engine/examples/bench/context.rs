//! What a token costs as its sequence grows.

use crate::engine::median;
use crate::options::Options;
use crate::session::Session;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Tokens of a prompt, and steps of decoding, measured at every length.
const PROMPT: usize = 256;
const STEPS: usize = 8;

/// Prefill and decode at powers of two up to 8k, and where the model's context ends if that is sooner.
pub fn run(options: &Options) -> Result<Value> {
    let models: Vec<Value> = options
        .models
        .iter()
        .map(|path| {
            let most = plumb_gguf_context(path)?.min(8192 + PROMPT);
            let mut session = Session::new(path, options, 1, most)?;
            let mut lines = Vec::new();
            for start in (0..=most - PROMPT).step_by(PROMPT) {
                let mut prefill = vec![session.extend(0, start, PROMPT)?];
                let last = start + 2 * PROMPT > most;
                if !last && (!start.is_power_of_two() || start < PROMPT) {
                    continue;
                }
                for _ in 1..options.repeat {
                    prefill.push(session.extend(0, start, PROMPT)?);
                }
                let decode = (0..options.repeat)
                    .map(|_| session.decode(1, start, STEPS))
                    .collect::<Result<Vec<_>>>()?;
                // Decoding has overwritten the first positions: they are computed again.
                session.extend(0, start, PROMPT)?;
                let milliseconds = |timings: Vec<crate::session::Timing>| {
                    1e3 * median(timings.iter().map(|t| t.cpu / t.tokens as f64).collect())
                };
                lines.push(json!({
                    "context": start,
                    "prefill_ms_a_token": milliseconds(prefill),
                    "decode_ms_a_token": milliseconds(decode),
                }));
            }
            Ok(json!({ "model": path.file_name().map(|n| n.to_string_lossy()), "lines": lines }))
        })
        .collect::<Result<_>>()?;
    Ok(json!({ "models": models }))
}

fn plumb_gguf_context(path: &std::path::Path) -> Result<usize> {
    let gguf = plumb_gguf::Gguf::open(path)?;
    let key = format!("{}.context_length", gguf.architecture());
    Ok(gguf.u32(&key)? as usize)
}

/// The report as Markdown.
pub fn table(report: &Value) -> String {
    let mut out = String::from(
        "| model | context | prefill, ms a token | decode, ms a token |\n|---|---|---|---|\n",
    );
    for model in report["models"].as_array().into_iter().flatten() {
        for line in model["lines"].as_array().into_iter().flatten() {
            out += &format!(
                "| {} | {} | {:.3} | {:.3} |\n",
                model["model"].as_str().unwrap_or(""),
                line["context"],
                line["prefill_ms_a_token"].as_f64().unwrap_or(f64::NAN),
                line["decode_ms_a_token"].as_f64().unwrap_or(f64::NAN)
            );
        }
    }
    out
}
