//! The command line.

use plumb_engine::KvType;
use std::path::PathBuf;

/// What to measure, and how.
pub struct Options {
    pub what: String,
    pub json: bool,
    /// One weight type only.
    pub ty: Option<String>,
    pub cpus: Vec<usize>,
    pub models: Vec<PathBuf>,
    pub threads: usize,
    /// Tokens of a prompt.
    pub prefill: usize,
    /// Steps of decoding.
    pub decode: usize,
    pub repeat: usize,
    /// How the cache keeps K and V.
    pub kv: KvType,
    /// llama.cpp's program of the same measurements.
    pub peer: Option<PathBuf>,
}

impl Options {
    pub fn read() -> Result<Self, Box<dyn std::error::Error>> {
        let mut arguments = std::env::args().skip(1);
        let mut options = Self {
            what: arguments.next().ok_or("say what to measure: kernels, engine or context")?,
            json: false,
            ty: None,
            cpus: Vec::new(),
            models: Vec::new(),
            threads: 1,
            prefill: 512,
            decode: 64,
            repeat: 5,
            kv: KvType::Int16,
            peer: None,
        };
        while let Some(name) = arguments.next() {
            if name == "--json" {
                options.json = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--type" => options.ty = Some(value),
                "--cpus" => {
                    options.cpus = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--model" => options.models.push(value.into()),
                "--threads" => options.threads = value.parse()?,
                "--prefill" => options.prefill = value.parse()?,
                "--decode" => options.decode = value.parse()?,
                "--repeat" => options.repeat = value.parse()?,
                "--kv-type" => {
                    options.kv = [KvType::Int16, KvType::Int8]
                        .into_iter()
                        .find(|kv| kv.name() == value)
                        .ok_or("--kv-type is int16 or int8")?;
                }
                "--peer" => options.peer = Some(value.into()),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}
