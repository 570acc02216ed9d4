//! A loaded model: its shape, its packed matrices, its vectors.

mod layers;
mod packed;
mod tensors;

pub(crate) use layers::{Layer, MatrixId, Weights};
pub use packed::PackFile;

use crate::Error;
use crate::config::Config;
use crate::kernels::attention::Kept;
use crate::rope::Rotation;
use half::f16;
use plumb_gguf::Gguf;
use plumb_kv::{BlockShape, Identity, LayerShape};
use std::path::Path;
use std::sync::Arc;

/// Version of the layout of K and V within a block (see `kernels::attention`).
const KV_FORMAT: u32 = 1;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where the packed weights are kept.
    pub pack_file: PackFile,
}

/// How K and V are stored in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// IEEE half precision.
    #[default]
    F16,
    /// Bytes, with a factor a token and head: little more than half as much memory and transfer, for
    /// an error of at most one part in 254 of a head's greatest number.
    Int8,
}

impl KvType {
    /// As on the command line, and as instances tell each other.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a layer in a block of `tokens`.
    pub(crate) fn layer_bytes(self, config: &Config, tokens: usize) -> usize {
        let bytes = match self {
            Self::F16 => Kept::<f16>::layer_bytes,
            Self::Int8 => Kept::<i8>::layer_bytes,
        };
        bytes(config.kv_heads, config.head_dim, tokens)
    }
}

/// A model, ready to be run by any number of engines.
#[derive(Debug)]
pub struct Model {
    config: Config,
    digest: [u8; 32],
    weights: Weights,
    rotation: Rotation,
    rotation_windowed: Rotation,
}

impl Model {
    /// Loads a GGUF file.
    ///
    /// # Errors
    /// When the file cannot be read, is of a family without a plan, or lacks a tensor or has one
    /// of the wrong shape.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Self>, Error> {
        Self::of(path, &Gguf::open(path)?, options)
    }

    /// As [`load`](Self::load), from a file that is open already. It is not needed afterwards.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of(path: &Path, gguf: &Gguf, options: &LoadOptions) -> Result<Arc<Self>, Error> {
        let config = Config::read(gguf)?;
        let weights = Weights::load(path, gguf, &config, &options.pack_file)?;
        let divisors = weights.rope_divisors.as_deref();
        let rotation = |rope: crate::config::RopeBase| {
            Rotation::new(config.rope_dims, rope.base, rope.scaling, divisors)
        };
        let (rotation, rotation_windowed) = (rotation(config.rope), rotation(config.rope_windowed));
        Ok(Arc::new(Self {
            digest: weights.digest(),
            config,
            weights,
            rotation,
            rotation_windowed,
        }))
    }

    /// What the metadata says.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// SHA-256 of the model's file.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The KV blocks that an engine of this model reads and writes.
    #[must_use]
    pub fn kv_shape(&self, block_tokens: usize, ty: KvType) -> BlockShape {
        let bytes = ty.layer_bytes(&self.config, block_tokens);
        let layers =
            self.config.windows.iter().map(|&window| LayerShape { bytes, window }).collect();
        BlockShape { layers, tokens: block_tokens }
    }

    /// What another instance must agree on before it may exchange KV blocks with this one.
    #[must_use]
    pub fn identity(&self, block_tokens: usize, ty: KvType) -> Identity {
        Identity {
            model_digest: self.digest,
            dtype: ty.name().to_owned(),
            layers: self.config.layers as u32,
            kv_heads: self.config.kv_heads as u32,
            head_dim: self.config.head_dim as u32,
            block_tokens: block_tokens as u32,
            format_version: KV_FORMAT,
        }
    }

    /// Bytes of the packed weight matrices.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The angles of layers with or without a window.
    pub(crate) fn rotation(&self, windowed: bool) -> &Rotation {
        if windowed { &self.rotation_windowed } else { &self.rotation }
    }
}
