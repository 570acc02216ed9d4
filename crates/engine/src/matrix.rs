//! A weight matrix of the model, and the quantised rows that it is multiplied by: the engine's side
//! of `kernels::matmul`, by address, since both lie in memory that threads share.

use crate::kernels::matmul::{Activations, Input, Isa, Output, PackError, Packed, Shape, matmul};
use std::ops::Range;
use std::ptr::NonNull;

/// A weight matrix over packed bytes that live elsewhere.
#[derive(Debug)]
pub(crate) struct Matrix {
    shape: Shape,
    packed: NonNull<[u8]>,
}

// SAFETY: the packed bytes are never written while the matrix lives.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// The matrix whose packed form is at `packed`.
    ///
    /// # Safety
    /// `packed` stays alive and unwritten as long as the matrix.
    pub(crate) unsafe fn over(shape: Shape, packed: NonNull<[u8]>) -> Result<Self, PackError> {
        // SAFETY: the caller's promise.
        Packed::from_bytes(shape, unsafe { packed.as_ref() })?;
        Ok(Self { shape, packed })
    }

    /// Type and sizes.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// One row in single precision, as an embedding is looked up.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        self.view().row(row, out);
    }

    /// Computes some strips of `out[r * rows of the matrix + o] = Σ_i w[o][i] x[r][i]`.
    ///
    /// # Safety
    /// `x` holds `rows` rows, `quantised` the same as [`quantise`] wrote them; `out` has `rows`
    /// rows, in which nobody else touches these strips.
    pub(crate) unsafe fn multiply(
        &self,
        isa: Isa,
        x: &[f32],
        quantised: *mut u8,
        rows: usize,
        out: *mut f32,
        strips: Range<usize>,
    ) {
        let width = self.shape.rows;
        // SAFETY: the caller's promises; `Output` only keeps the address of its buffer.
        unsafe {
            let input = Input { floats: x, blocks: activations(quantised, rows, self.shape.cols) };
            let out = Output::new(std::slice::from_raw_parts_mut(out, rows * width), width);
            matmul(isa, &self.view(), &input, &out, strips);
        }
    }

    fn view(&self) -> Packed<'_> {
        // SAFETY: `over` promises the bytes, and has made the same view.
        Packed::from_bytes(self.shape, unsafe { self.packed.as_ref() }).expect("checked by `over`")
    }
}

/// Bytes of `rows` quantised rows.
pub(crate) fn quantised_bytes(rows: usize, cols: usize) -> usize {
    Activations::bytes(rows, cols)
}

/// Quantises one of `rows` rows.
///
/// # Safety
/// `out` has `quantised_bytes(rows, x.len())` bytes, 64-byte aligned, in which nobody else touches
/// this row.
pub(crate) unsafe fn quantise(isa: Isa, x: &[f32], row: usize, rows: usize, out: *mut u8) {
    // SAFETY: the caller's promises.
    unsafe { activations(out, rows, x.len()).quantize_row(isa, row, x) };
}

/// # Safety
/// There are as many bytes at `at` as the rows take, 64-byte aligned.
unsafe fn activations<'a>(at: *mut u8, rows: usize, cols: usize) -> Activations<'a> {
    let bytes = quantised_bytes(rows, cols);
    // SAFETY: the caller's promise; `Activations` only keeps the address of its buffer.
    let buffer = unsafe { std::slice::from_raw_parts_mut(at, bytes) };
    Activations::over(buffer, rows, cols).expect("the plan made room for the rows")
}
