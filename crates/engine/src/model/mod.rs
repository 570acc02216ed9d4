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
use plumb_gguf::Gguf;
use plumb_kv::{BlockShape, Identity, LayerShape};
use std::path::Path;
use std::sync::Arc;

/// Version of the layout of K and V within a block (see `kernels::attention`).
const KV_FORMAT: u32 = 2;

/// Blocks begin with a page of the system's.
const PAGE: usize = 4096;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where the packed weights are kept.
    pub pack_file: PackFile,
}

/// How K and V are stored in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Integers of 16 bits, with a factor a token and head: an error of at most one part in 32,766 of a
    /// head's greatest number.
    #[default]
    Int16,
    /// The same in bytes: little more than half as much memory and transfer, for one part in 254.
    Int8,
}

impl KvType {
    /// As on the command line, and as instances tell each other.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of the numbers of a layer in a block of `tokens`, and of their factors.
    pub(crate) fn layer_bytes(self, config: &Config, tokens: usize) -> [usize; 2] {
        let side = match self {
            Self::Int16 => Kept::<i16>::side_bytes,
            Self::Int8 => Kept::<i8>::side_bytes,
        };
        let sides = 2 * config.kv_heads;
        [sides * side(config.head_dim, tokens), sides * tokens * size_of::<f32>()]
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

    /// The KV blocks that an engine of this model reads and writes: the numbers of all layers, then the
    /// factors of all layers, then nothing up to a whole page.
    #[must_use]
    pub fn kv_shape(&self, block_tokens: usize, ty: KvType) -> BlockShape {
        let [numbers, factors] = ty.layer_bytes(&self.config, block_tokens);
        let windows = &self.config.windows;
        let all = |bytes| windows.iter().map(move |&window| LayerShape { bytes, window });
        let mut layers: Vec<_> = all(numbers).chain(all(factors)).collect();
        let bytes = windows.len() * (numbers + factors);
        if let Some(last) = layers.last_mut() {
            last.bytes += bytes.next_multiple_of(PAGE) - bytes;
        }
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
