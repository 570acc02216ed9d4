//! Weight matrices and their products with activations.
//!
//! The plainest form: rows are dequantised one at a time and multiplied in single precision.

use crate::kernels::norm::in_pairs;
use plumb_gguf::{BlockType, dequant};
use std::ops::Range;
use std::ptr::NonNull;

/// Output elements a strip.
const STRIP: usize = 16;

/// A weight matrix of `outputs` rows by `inputs` columns, over bytes that [`Matrix::pack`] wrote.
#[derive(Debug)]
pub(crate) struct Matrix {
    ty: BlockType,
    outputs: usize,
    inputs: usize,
    packed: NonNull<u8>,
}

// SAFETY: the packed bytes are never written after `pack`.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// Bytes of the packed form; `None` when the rows do not fill whole blocks.
    pub(crate) fn packed_bytes(ty: BlockType, outputs: usize, inputs: usize) -> Option<usize> {
        ty.row_bytes(inputs)?.checked_mul(outputs)
    }

    /// Writes the packed form of a tensor's bytes.
    pub(crate) fn pack(
        _ty: BlockType,
        _outputs: usize,
        _inputs: usize,
        tensor: &[u8],
        packed: &mut [u8],
    ) {
        packed.copy_from_slice(tensor);
    }

    /// The matrix whose packed form is at `packed`.
    ///
    /// # Safety
    /// `packed` holds what `pack` wrote for the same type and shape, 64-byte aligned, and stays
    /// alive and unwritten as long as the matrix.
    pub(crate) unsafe fn over(
        ty: BlockType,
        outputs: usize,
        inputs: usize,
        packed: NonNull<u8>,
    ) -> Self {
        Self { ty, outputs, inputs, packed }
    }

    pub(crate) fn ty(&self) -> BlockType {
        self.ty
    }

    /// Elements of a product.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Elements of an activation row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        Self::packed_bytes(self.ty, self.outputs, self.inputs).unwrap_or(0)
    }

    /// One row in single precision, as the embedding is looked up.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.outputs && out.len() == self.inputs);
        let bytes = self.ty.row_bytes(self.inputs).unwrap_or(0);
        // SAFETY: `over` promises all rows.
        let tensor =
            unsafe { std::slice::from_raw_parts(self.packed.as_ptr().add(row * bytes), bytes) };
        dequant::row(self.ty, tensor, out);
    }

    /// Into how many strips of outputs a product divides.
    pub(crate) fn strips(&self) -> usize {
        self.outputs.div_ceil(STRIP)
    }

    /// Computes some strips of `out[r * outputs + o] = Σ_i w[o][i] x[r][i]`.
    ///
    /// # Safety
    /// `x` holds `rows` rows of `inputs` floats, `quantised` the same rows as [`quantise`] wrote
    /// them; `out` has `rows` rows of `outputs`, in which nobody else touches these strips.
    pub(crate) unsafe fn multiply(
        &self,
        x: &[f32],
        _quantised: &[u8],
        rows: usize,
        out: *mut f32,
        strips: Range<usize>,
    ) {
        let mut weights = vec![0.0; self.inputs];
        for output in strips.start * STRIP..(strips.end * STRIP).min(self.outputs) {
            self.row(output, &mut weights);
            for row in 0..rows {
                let x = &x[row * self.inputs..][..self.inputs];
                // SAFETY: the caller's promise.
                unsafe { *out.add(row * self.outputs + output) = dot(&weights, x) };
            }
        }
    }
}

/// Bytes of `rows` quantised rows.
pub(crate) fn quantised_bytes(rows: usize, inputs: usize) -> usize {
    rows * inputs * 2
}

/// Quantises one of `rows` rows.
///
/// # Safety
/// `out` has `quantised_bytes(rows, x.len())` bytes, 64-byte aligned, in which nobody else touches
/// this row.
pub(crate) unsafe fn quantise(_x: &[f32], _row: usize, _rows: usize, _out: *mut u8) {}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (whole_a, whole_b) = (a.chunks_exact(16), b.chunks_exact(16));
    for ((sum, a), b) in sums.iter_mut().zip(whole_a.remainder()).zip(whole_b.remainder()) {
        *sum = a * b;
    }
    for (a, b) in whole_a.zip(whole_b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    in_pairs(sums)
}
