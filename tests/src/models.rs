//! The real models that the tests run.

use std::path::PathBuf;

/// SmolLM2-135M-Instruct, Q4_1: a chat model of the Llama family.
pub fn smollm() -> PathBuf {
    find("PLUMB_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Gemma 3 270M, Q4_K_M: a base model without a chat template, with sliding windows.
pub fn gemma() -> PathBuf {
    find("PLUMB_TEST_GEMMA", "gemma-3-270m-q4_k_m.gguf")
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the checkout").to_owned()
}

fn find(variable: &str, file: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("PLUMB_CACHE").map(PathBuf::from);
        cache.unwrap_or_else(|| root().join(".cache/models")).join(file)
    });
    assert!(path.exists(), "{} is not there: run `make models`", path.display());
    path
}
