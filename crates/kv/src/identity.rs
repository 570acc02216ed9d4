//! What two instances must have in common before one may read the other's KV.

use serde::{Deserialize, Serialize};

/// Everything that decides what the bytes of a block mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Digest of the model's file.
    pub model_digest: [u8; 32],
    /// Element type of K and V, such as `int16`.
    pub dtype: String,
    /// Layers of the model.
    pub layers: u32,
    /// K and V heads a layer.
    pub kv_heads: u32,
    /// Elements a head.
    pub head_dim: u32,
    /// Tokens a block.
    pub block_tokens: u32,
    /// Version of the layout within a block.
    pub format_version: u32,
}

/// The first thing in which two identities differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} differs: ours {ours}, the peer's {theirs}; both instances must serve the same model with the same settings"
)]
pub struct Mismatch {
    /// The field's name.
    pub what: &'static str,
    /// Our value.
    pub ours: String,
    /// The peer's value.
    pub theirs: String,
}

impl Identity {
    /// # Errors
    /// [`Mismatch`] naming the first field that differs, with both values.
    pub fn check(&self, theirs: &Self) -> Result<(), Mismatch> {
        let digest = |identity: &Self| {
            identity.model_digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let fields = |identity: &Self| {
            [
                ("format version", identity.format_version.to_string()),
                ("model digest", digest(identity)),
                ("dtype", identity.dtype.clone()),
                ("layers", identity.layers.to_string()),
                ("KV heads", identity.kv_heads.to_string()),
                ("head dimension", identity.head_dim.to_string()),
                ("tokens a block", identity.block_tokens.to_string()),
            ]
        };
        for ((what, ours), (_, theirs)) in fields(self).into_iter().zip(fields(theirs)) {
            if ours != theirs {
                return Err(Mismatch { what, ours, theirs });
            }
        }
        Ok(())
    }
}
