//! How fast the engine and its kernels are, against what the core can do and against llama.cpp.
//!
//! ```text
//! cargo run --release -p plumb-engine --example bench -- kernels [--type Q4_1]
//! cargo run --release -p plumb-engine --example bench -- engine --model FILE… [--peer PROGRAM]
//! cargo run --release -p plumb-engine --example bench -- context --model FILE…
//! cargo run --release -p plumb-engine --example bench -- profile --model FILE…
//! ```
//!
//! `--json` prints JSON instead of a table, `--cpus 0,1` pins threads, `--kv-type int8` keeps KV in
//! bytes, the variable `PLUMB_KERNELS` (portable, avx2 or avx512) chooses kernels. Two limits are measured in the same run: multiply-accumulates of bytes in registers
//! alone, and a sum over memory that is too big for the caches.

mod context;
mod engine;
mod kernels;
mod options;
mod peer;
mod profile;
mod session;

use options::Options;
use plumb_engine::kernels::matmul::Isa;
use plumb_engine::limits::Limits;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::read()?;
    if let Some(&cpu) = options.cpus.first() {
        pin(cpu)?;
    }
    let isa = Isa::choose()?;
    let limits = Limits::measure(isa);
    let (report, table): (_, fn(&serde_json::Value) -> String) = match options.what.as_str() {
        "kernels" => (kernels::run(&options, isa, &limits)?, kernels::table),
        "engine" => (engine::run(&options, isa, &limits)?, engine::table),
        "profile" => (profile::run(&options, &limits)?, profile::table),
        "context" => (context::run(&options)?, context::table),
        other => return Err(format!("cannot measure {other:?}").into()),
    };
    if options.json {
        println!("{report}");
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

/// Runs this thread on one core.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn limits_json(limits: &Limits) -> serde_json::Value {
    serde_json::json!({
        "int8_gmac_s": limits.int8, "int16_gmac_s": limits.int16, "float_gmac_s": limits.float, "memory_gb_s": limits.memory,
    })
}
