//! `plumb mem --json` as a user runs it, held against what is known of the process.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

use crate::lab::Program;
use crate::process::plumb;

/// Runs `plumb mem --json` with more arguments.
pub fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(plumb());
    command.args(["mem", "--json"]).args(arguments);
    command.output().expect("plumb runs")
}

/// The ledger of one process.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The whole object.
    pub json: Value,
    /// Resident bytes by layer.
    pub layers: BTreeMap<String, i64>,
    /// Bytes by kind beyond RSS.
    pub beyond: BTreeMap<String, i64>,
}

/// The ledger of a process.
pub fn of(pid: u64) -> Ledger {
    let output = run(&[&pid.to_string()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "plumb mem {pid} failed: {errors}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    ledgers(&json).pop().expect("one process")
}

/// All ledgers of an output.
pub fn ledgers(json: &Value) -> Vec<Ledger> {
    let processes = json["processes"].as_array().expect("a list of processes");
    processes
        .iter()
        .map(|json| Ledger {
            layers: amounts(&json["layers"], "layer", "resident_bytes"),
            beyond: amounts(&json["beyond_rss"], "kind", "bytes"),
            json: json.clone(),
        })
        .collect()
}

fn amounts(rows: &Value, name: &str, bytes: &str) -> BTreeMap<String, i64> {
    let rows = rows.as_array().expect("rows");
    let amount =
        |row: &Value| Some((row[name].as_str()?.to_owned(), row[bytes].as_i64().unwrap_or(0)));
    rows.iter().filter_map(amount).collect()
}

impl Ledger {
    /// The bytes of a layer, 0 where it is not shown.
    pub fn layer(&self, name: &str) -> i64 {
        self.layers.get(name).copied().unwrap_or(0)
    }

    /// RSS of the sample.
    pub fn rss(&self) -> i64 {
        self.json["rss_bytes"].as_i64().expect("rss_bytes")
    }

    /// What is wrong with the residual, if anything: more than 1 % of RSS and than 256 KiB.
    pub fn residual_fault(&self) -> Option<String> {
        let residual = self.json["residual_bytes"].as_i64().expect("residual_bytes");
        let sum: i64 = self.layers.values().sum();
        let allowed = (self.rss() / 100).max(256 << 10);
        (residual.abs() > allowed || residual != self.rss() - sum)
            .then(|| format!("residual {residual} of RSS {}", self.rss()))
    }
}

/// What differs between a program's truth and its ledger. `base` is the ledger of the same program
/// with nothing taken, for programs that are not small themselves.
pub fn faults(program: &Program, ledger: &Ledger, base: Option<&Ledger>) -> Vec<String> {
    let mut faults: Vec<String> = ledger.residual_fault().into_iter().collect();
    for (kind, seen) in [("layers", &ledger.layers), ("beyond_rss", &ledger.beyond)] {
        let truth = program.truth[kind].as_object().expect("the truth has layers");
        for (name, bytes) in truth {
            let own = base.map_or(0, |base| base.layer(name));
            let expected = bytes.as_i64().expect("bytes") + own;
            let got = seen.get(name).copied().unwrap_or(0);
            // A small program has some bytes of its own in every layer.
            if (got - expected).abs() > expected / 50 + (128 << 10) {
                faults.push(format!("{name}: truth {expected}, ledger {got}"));
            }
        }
    }
    let truth = program.truth["layers"].as_object().expect("layers");
    for (name, &bytes) in ledger.layers.iter().filter(|(name, _)| !truth.contains_key(*name)) {
        let own = base.map_or(0, |base| base.layer(name));
        let allowed =
            own + if matches!(name.as_str(), "code" | "files") { 8 << 20 } else { 3 << 19 };
        if bytes > allowed {
            faults.push(format!("{name}: {bytes} bytes that the truth does not know"));
        }
    }
    faults
}
