//! Real models, from the cache that `make models` fills.

use plumb_engine::{LoadOptions, Model};
use plumb_gguf::Gguf;
use plumb_text::Tokenizer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model that the tests run, by its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Real {
    SmolLm2,
    Gemma3,
}

impl Real {
    pub const BOTH: [Self; 2] = [Self::SmolLm2, Self::Gemma3];

    pub fn path(self) -> PathBuf {
        let (variable, name) = match self {
            Self::SmolLm2 => ("PLUMB_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf"),
            Self::Gemma3 => ("PLUMB_TEST_GEMMA", "gemma-3-270m-q4_k_m.gguf"),
        };
        let cache = || {
            std::env::var_os("PLUMB_CACHE")
                .map_or_else(|| root().join(".cache/models"), PathBuf::from)
        };
        let path = std::env::var_os(variable).map_or_else(|| cache().join(name), PathBuf::from);
        assert!(path.exists(), "{} is not there: run `make models`", path.display());
        path
    }

    pub fn load(self) -> Arc<Model> {
        Model::load(&self.path(), &LoadOptions::default()).unwrap()
    }

    pub fn tokenizer(self) -> Arc<Tokenizer> {
        Arc::new(Tokenizer::from_gguf(&Gguf::open(&self.path()).unwrap()).unwrap())
    }
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
