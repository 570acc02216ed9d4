//! llama.cpp on the same model: `llama-peer` of bench/oracle, run as a child process.

use crate::options::Options;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// One run of all its measurements.
pub fn run(
    program: &Path,
    model: &Path,
    options: &Options,
) -> Result<Value, Box<dyn std::error::Error>> {
    let output = Command::new(program)
        .arg("--model")
        .arg(model)
        .args(["--threads", &options.threads.to_string()])
        .args(["--prefill", &options.prefill.to_string()])
        .args(["--decode", &options.decode.to_string()])
        .args(["--repeat", "1"])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", program.display(), output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
