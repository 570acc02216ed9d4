//! Whole models: prefill and decode, beside llama.cpp and the core's limits.

use crate::options::Options;
use crate::peer;
use crate::session::{Session, Timing};
use plumb_engine::kernels::matmul::Isa;
use plumb_engine::limits::Limits;
use plumb_gguf::Gguf;
use serde_json::{Value, json};
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is measured, by name: sequences, and whether it is the prompt or what follows.
const MEASURES: [&str; 3] = ["prefill", "decode_1", "decode_8"];

/// All models, each in rounds: llama.cpp, then we.
pub fn run(options: &Options, isa: Isa, limits: &Limits) -> Result<Value> {
    let models: Vec<Value> =
        options.models.iter().map(|model| one(model, options, limits)).collect::<Result<_>>()?;
    Ok(json!({
        "kernels": isa.name(),
        "threads": options.threads,
        "prefill": options.prefill,
        "decode": options.decode,
        "rounds": options.repeat,
        "limits": crate::limits_json(limits),
        "models": models,
    }))
}

fn one(path: &Path, options: &Options, limits: &Limits) -> Result<Value> {
    let mut session = Session::new(path, options, 8, options.prefill + options.decode)?;
    // Once unmeasured: pages are touched, threads are awake.
    session.prefill(0, options.prefill)?;
    let mut ours: [Vec<Timing>; 3] = Default::default();
    let mut theirs: [Vec<f64>; 3] = Default::default();
    for _ in 0..options.repeat {
        if let Some(program) = &options.peer {
            let report = peer::run(program, path, options)?;
            for (rates, measure) in theirs.iter_mut().zip(MEASURES) {
                rates.push(report[measure]["tokens_per_cpu_s"].as_f64().ok_or("no rate")?);
            }
        }
        ours[0].push(session.prefill(0, options.prefill)?);
        for sequence in 1..8 {
            session.prefill(sequence, options.prefill)?;
        }
        ours[1].push(session.decode(1, options.prefill, options.decode)?);
        ours[2].push(session.decode(8, options.prefill, options.decode)?);
    }
    let work = Work::of(path)?;
    let kv_bytes = session.kv_bytes(options.prefill + options.decode / 2);
    let limit = |measure, kv_bytes| work.limit(measure, kv_bytes, limits) * options.threads as f64;
    let lines = MEASURES.iter().zip(ours).zip(theirs).map(|((&measure, ours), theirs)| {
        let wall = median(ours.iter().map(|t| t.tokens as f64 / t.wall).collect());
        // Per second of one thread's time, times threads: blind to whoever else runs here.
        let cpu = median(ours.iter().map(|t| t.tokens as f64 / t.cpu).collect());
        let peer = (!theirs.is_empty()).then(|| median(theirs));
        json!({
            "measure": measure,
            "tokens_per_s": wall,
            "tokens_per_cpu_s": cpu,
            "llama_cpp_tokens_per_cpu_s": peer,
            "ratio": peer.map(|peer| cpu / peer),
            "limit_tokens_per_s": limit(measure, 0.0),
            "of_limit": cpu * options.threads as f64 / limit(measure, 0.0),
            "of_limit_with_kv": cpu * options.threads as f64 / limit(measure, kv_bytes),
        })
    });
    Ok(json!({
        "model": path.file_name().map(|name| name.to_string_lossy()),
        "weight_bytes": session.weight_bytes(),
        "lines": lines.collect::<Vec<_>>(),
    }))
}

/// What the matrices of a model ask of the core for a token.
struct Work {
    /// Multiply-accumulates of all layers.
    layers: f64,
    /// Those of the head, which a prompt needs once.
    head: f64,
    bytes: f64,
}

impl Work {
    fn of(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let mut work = Self { layers: 0.0, head: 0.0, bytes: 0.0 };
        // The embedding is the head where there is no other.
        let head = if gguf.tensor("output.weight").is_some() { "output" } else { "token_embd" };
        for tensor in gguf.tensors().iter().filter(|tensor| tensor.dims.len() == 2) {
            let macs = tensor.elements() as f64;
            if tensor.name.starts_with("blk.") {
                work.layers += macs;
            } else if tensor.name.starts_with(head) {
                work.head += macs;
            } else {
                continue;
            }
            work.bytes += tensor.bytes() as f64;
        }
        Ok(work)
    }

    /// Tokens a second if nothing else cost anything, one thread. `kv_bytes` are read for each token of
    /// decoding.
    fn limit(&self, measure: &str, kv_bytes: f64, limits: &Limits) -> f64 {
        let compute = limits.int8 * 1e9 / (self.layers + self.head);
        let memory = |sequences: f64| limits.memory * 1e9 / (self.bytes / sequences + kv_bytes);
        match measure {
            "prefill" => limits.int8 * 1e9 / self.layers,
            "decode_1" => compute.min(memory(1.0)),
            _ => compute.min(memory(8.0)),
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The report as Markdown.
pub fn table(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    // Empty where no peer was measured.
    let known = |value: &Value| value.as_f64().map_or_else(String::new, |x| format!("{x:.2}"));
    let limits = &report["limits"];
    let mut out = format!(
        "kernels {}, threads {}, prompt {}, {} steps, medians of {} rounds; int8 peak {:.1} GMAC/s, \
         memory {:.1} GB/s a core\n\n\
         | model | measure | tok/s | tok/CPU-s | llama.cpp | ratio | of the limit | with KV |\n\
         |---|---|---|---|---|---|---|---|\n",
        report["kernels"],
        report["threads"],
        report["prefill"],
        report["decode"],
        report["rounds"],
        number(&limits["int8_gmac_s"]),
        number(&limits["memory_gb_s"])
    );
    for model in report["models"].as_array().into_iter().flatten() {
        for line in model["lines"].as_array().into_iter().flatten() {
            out += &format!(
                "| {} | {} | {:.1} | {:.1} | {} | {} | {:.0} % | {:.0} % |\n",
                model["model"].as_str().unwrap_or(""),
                line["measure"].as_str().unwrap_or(""),
                number(&line["tokens_per_s"]),
                number(&line["tokens_per_cpu_s"]),
                known(&line["llama_cpp_tokens_per_cpu_s"]),
                known(&line["ratio"]),
                100.0 * number(&line["of_limit"]),
                100.0 * number(&line["of_limit_with_kv"])
            );
        }
    }
    out
}
