//! Where the time of a model's steps goes, operation by operation, against the core's limits.

use crate::options::Options;
use crate::session::Session;
use plumb_engine::PlanReport;
use plumb_engine::limits::Limits;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A prompt, one sequence that decodes, and eight.
pub fn run(options: &Options, limits: &Limits) -> Result<Value> {
    let mut tables = Vec::new();
    for path in &options.models {
        let mut session = Session::profiled(path, options, 8, options.prefill + options.decode)?;
        for sequence in 0..8 {
            session.prefill(sequence, options.prefill)?;
        }
        session.take_profile();
        session.prefill(0, options.prefill)?;
        let mut add = |what: &str, report: PlanReport| {
            tables.push(json!({
                "model": path.file_name().map(|name| name.to_string_lossy()),
                "measure": what,
                "table": report.profile(limits),
            }));
        };
        add("prefill", session.take_profile());
        for sequences in [1, 8] {
            session.decode(sequences, options.prefill, options.decode)?;
            add(&format!("decode_{sequences}"), session.take_profile());
        }
    }
    Ok(json!({ "prefill": options.prefill, "decode": options.decode, "profiles": tables }))
}

/// The report for people.
pub fn table(report: &Value) -> String {
    let mut out = String::new();
    for profile in report["profiles"].as_array().into_iter().flatten() {
        out += &format!(
            "{}, {}, prompt {}, {} steps\n{}\n",
            profile["model"].as_str().unwrap_or(""),
            profile["measure"].as_str().unwrap_or(""),
            report["prefill"],
            report["decode"],
            profile["table"].as_str().unwrap_or("")
        );
    }
    out
}
