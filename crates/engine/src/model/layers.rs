//! The weights of a model by their place in it.

use super::packed::{Layout, PackFile, Packed};
use super::tensors::Tensors;
use crate::Error;
use crate::config::Config;
use crate::kernels::matmul::Shape;
use crate::matrix::Matrix;
use plumb_gguf::{Gguf, TensorInfo};
use std::path::Path;
use std::ptr::NonNull;

/// A matrix of a model: an index, so that plans own nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MatrixId(usize);

/// One transformer layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) q: MatrixId,
    pub(crate) k: MatrixId,
    pub(crate) v: MatrixId,
    pub(crate) q_bias: Option<Vec<f32>>,
    pub(crate) k_bias: Option<Vec<f32>>,
    pub(crate) v_bias: Option<Vec<f32>>,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) output: MatrixId,
    pub(crate) attention_output_norm: Option<Vec<f32>>,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate: MatrixId,
    pub(crate) up: MatrixId,
    pub(crate) down: MatrixId,
    pub(crate) ffn_output_norm: Option<Vec<f32>>,
}

/// All weights.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: MatrixId,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// The embedding's own matrix where the file has no other.
    pub(crate) head: MatrixId,
    pub(crate) rope_divisors: Option<Vec<f32>>,
    matrices: Vec<Matrix>,
    packed: Packed,
    bytes: usize,
}

impl Weights {
    pub(super) fn load(
        path: &Path,
        gguf: &Gguf,
        config: &Config,
        keep: &PackFile,
    ) -> Result<Self, Error> {
        let tensors = Tensors::new(gguf, config);
        let mut wanted = Wanted { tensors: &tensors, list: Vec::new() };
        let embedding = wanted.matrix("token_embd.weight", config.vocab, config.width)?;
        let head = match tensors.optional_matrix("output.weight", config.vocab, config.width)? {
            Some(tensor) => wanted.add(tensor),
            None => embedding,
        };
        let output_norm = tensors.vector("output_norm.weight", config.width)?;
        let rope_divisors = tensors.optional_vector("rope_freqs.weight", config.rope_dims / 2)?;
        let layers = (0..config.layers)
            .map(|layer| wanted.layer(layer, config))
            .collect::<Result<_, _>>()?;
        tensors.refuse_unused()?;
        let layout = Layout::new(&wanted.list)?;
        let packed = Packed::obtain(path, gguf, &layout, keep)?;
        let matrices = matrices(&layout, &packed)?;
        let bytes = layout.bytes();
        Ok(Self { embedding, layers, output_norm, head, rope_divisors, matrices, packed, bytes })
    }

    /// SHA-256 of the model's file.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.packed.digest
    }

    /// The matrix of an id of this model.
    pub(crate) fn matrix(&self, id: MatrixId) -> &Matrix {
        &self.matrices[id.0]
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The matrices asked for so far, in the order in which they will lie.
struct Wanted<'a> {
    tensors: &'a Tensors<'a>,
    list: Vec<&'a TensorInfo>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, tensor: &'a TensorInfo) -> MatrixId {
        self.list.push(tensor);
        MatrixId(self.list.len() - 1)
    }

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<MatrixId, Error> {
        let tensor = self.tensors.matrix(name, outputs, inputs)?;
        Ok(self.add(tensor))
    }

    fn layer(&mut self, layer: usize, config: &Config) -> Result<Layer, Error> {
        let name = |part: &str, kind: &str| format!("blk.{layer}.{part}.{kind}");
        let weight = |part: &str| name(part, "weight");
        let (width, q, kv) = (config.width, config.q_width(), config.kv_width());
        let tensors = self.tensors;
        let family = config.family;
        let norm_if = |needed: bool, part: &str, len: usize| {
            needed.then(|| tensors.vector(&weight(part), len)).transpose()
        };
        let bias = |part: &str, len: usize| match family.needs_qkv_bias() {
            true => tensors.vector(&name(part, "bias"), len).map(Some),
            false => tensors.optional_vector(&name(part, "bias"), len),
        };
        Ok(Layer {
            attention_norm: tensors.vector(&weight("attn_norm"), width)?,
            q: self.matrix(&weight("attn_q"), q, width)?,
            k: self.matrix(&weight("attn_k"), kv, width)?,
            v: self.matrix(&weight("attn_v"), kv, width)?,
            q_bias: bias("attn_q", q)?,
            k_bias: bias("attn_k", kv)?,
            v_bias: bias("attn_v", kv)?,
            q_norm: norm_if(family.normalises_heads(), "attn_q_norm", config.head_dim)?,
            k_norm: norm_if(family.normalises_heads(), "attn_k_norm", config.head_dim)?,
            output: self.matrix(&weight("attn_output"), width, q)?,
            attention_output_norm: norm_if(
                family.normalises_outputs(),
                "post_attention_norm",
                width,
            )?,
            ffn_norm: tensors.vector(&weight("ffn_norm"), width)?,
            gate: self.matrix(&weight("ffn_gate"), config.ffn, width)?,
            up: self.matrix(&weight("ffn_up"), config.ffn, width)?,
            down: self.matrix(&weight("ffn_down"), width, config.ffn)?,
            ffn_output_norm: norm_if(family.normalises_outputs(), "post_ffw_norm", width)?,
        })
    }
}

/// The matrices over packed bytes.
fn matrices(layout: &Layout<'_>, packed: &Packed) -> Result<Vec<Matrix>, Error> {
    let over = |(tensor, shape, at): (&TensorInfo, Shape, usize)| {
        // SAFETY: the layout's bytes are there from `base` on; they lie as long as `packed`, which
        // lives beside the matrices, and nobody writes to them.
        let matrix = unsafe {
            let bytes = NonNull::slice_from_raw_parts(packed.base().add(at), shape.packed_bytes());
            Matrix::over(shape, bytes)
        };
        matrix.map_err(|error| Error::matrix(tensor, error))
    };
    layout.entries().map(over).collect()
}
