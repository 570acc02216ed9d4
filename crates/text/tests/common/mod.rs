//! Real models, from the cache that `make models` fills.

#![allow(dead_code, reason = "every test binary uses its own part")]

use plumb_gguf::Gguf;
use plumb_text::Tokenizer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model by its file name.
pub fn model(name: &str) -> Gguf {
    let variable = if name == GEMMA3 { "PLUMB_TEST_GEMMA" } else { "PLUMB_TEST_MODEL" };
    let cache = std::env::var_os("PLUMB_CACHE").map(PathBuf::from);
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| cache.unwrap_or_else(|| root().join(".cache/models")).join(name));
    Gguf::open(&path).unwrap_or_else(|error| panic!("{error}: run `make models`"))
}

pub fn tokenizer(name: &str) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_gguf(&model(name)).unwrap())
}

/// A fixture below `tests/fixtures/oracle`.
pub fn fixture(name: &str) -> String {
    let path = root().join("tests/fixtures/oracle").join(name);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `make oracle`", path.display()))
}
