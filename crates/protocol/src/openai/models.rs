//! `/v1/models`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One served model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The name that requests give.
    pub id: String,
    /// `model`.
    pub object: String,
    /// When this instance started, in seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: String,
    /// What the name stands for.
    pub root: Option<String>,
    /// Always null.
    pub parent: Option<String>,
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: Option<usize>,
    /// Always empty: Plumb has no accounts.
    pub permission: Vec<Value>,
}

/// All served models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}
