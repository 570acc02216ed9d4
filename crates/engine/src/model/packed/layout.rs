//! Which matrix lies where in the packed weights, and how it is packed.

use crate::Error;
use crate::kernels::matmul::{self, Shape};
use plumb_gguf::{BlockType, Gguf, TensorInfo};
use sha2::{Digest, Sha256};

/// The matrices of a model in the order in which they lie, each on a cache line.
pub(in crate::model) struct Layout<'a> {
    entries: Vec<(&'a TensorInfo, Shape, usize)>,
    bytes: usize,
    fingerprint: [u8; 32],
}

impl<'a> Layout<'a> {
    pub(in crate::model) fn new(tensors: &[&'a TensorInfo]) -> Result<Self, Error> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for &tensor in tensors {
            let shape = Shape::new(tensor.ty, tensor.rows(), tensor.dims[0])
                .map_err(|error| Error::matrix(tensor, error))?;
            entries.push((tensor, shape, bytes));
            bytes = (bytes + shape.packed_bytes()).next_multiple_of(matmul::ALIGN);
        }
        let fingerprint = fingerprint(&entries);
        Ok(Self { entries, bytes, fingerprint })
    }

    /// Bytes of all packed matrices.
    pub(in crate::model) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Each matrix with its offset.
    pub(in crate::model) fn entries(&self) -> impl Iterator<Item = (&'a TensorInfo, Shape, usize)> {
        self.entries.iter().copied()
    }

    /// A digest of what is packed and of how: another order of matrices, or kernels that want
    /// another order of weights, have another.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Packs every matrix into `out`, giving the file's pages back as they are done with.
    pub(super) fn pack(&self, gguf: &Gguf, out: &mut [u8]) -> Result<(), Error> {
        for &(tensor, shape, at) in &self.entries {
            let packed = &mut out[at..at + shape.packed_bytes()];
            matmul::pack(shape, gguf.data(tensor), packed)
                .map_err(|error| Error::matrix(tensor, error))?;
            if let Err(error) = gguf.release(tensor) {
                tracing::debug!(%error, "the model file's pages stay until it is closed");
            }
        }
        Ok(())
    }
}

fn fingerprint(entries: &[(&TensorInfo, Shape, usize)]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (tensor, shape, at) in entries {
        digest.update(format!("{} {} {} {} {at}\n", tensor.name, shape.ty, shape.rows, shape.cols));
    }
    let mut types: Vec<BlockType> = entries.iter().map(|(_, shape, _)| shape.ty).collect();
    types.sort_unstable();
    types.dedup();
    for ty in types {
        digest.update(sample(ty));
    }
    digest.finalize().into()
}

/// A small matrix packed: its bytes change with the packed order, without anybody having to
/// remember a version number.
fn sample(ty: BlockType) -> Vec<u8> {
    const ROWS: usize = 19;
    const COLS: usize = 256;
    let Ok(shape) = Shape::new(ty, ROWS, COLS) else { return Vec::new() };
    let bytes = ty.row_bytes(COLS).unwrap_or(0) * ROWS;
    let source: Vec<u8> = (0..bytes).map(|i| (i * 151 % 251) as u8).collect();
    let mut packed = vec![0; shape.packed_bytes()];
    match matmul::pack(shape, &source, &mut packed) {
        Ok(()) => packed,
        Err(_) => Vec::new(),
    }
}
