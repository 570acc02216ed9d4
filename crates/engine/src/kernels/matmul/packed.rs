//! A packed weight matrix: its shape, and a view of its bytes wherever they lie.

use super::format::{STRIP, is_float, strip_bytes};
use plumb_gguf::BlockType;

/// The shape of a weight matrix: `rows` outputs of `cols` inputs each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Type of the elements.
    pub ty: BlockType,
    /// Output features: rows of the matrix.
    pub rows: usize,
    /// Input features: elements of a row.
    pub cols: usize,
    strip_bytes: usize,
    packed_bytes: usize,
}

/// Why a matrix cannot be packed or viewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A row does not consist of whole blocks.
    #[error("{rows} x {cols} elements of {ty}: a row must be whole blocks of {}", ty.block_len())]
    Shape {
        /// Type of the elements.
        ty: BlockType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// A buffer is longer or shorter than the shape.
    #[error("{what}: {got} bytes where the matrix takes {want}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its bytes.
        got: usize,
        /// The bytes that it should have.
        want: usize,
    },
    /// Bytes of a packed matrix do not start on a multiple of 64.
    #[error("packed weights must be aligned to {ALIGN} bytes")]
    Alignment,
}

/// What the address of a packed matrix is a multiple of: a cache line.
pub const ALIGN: usize = 64;

impl Shape {
    /// Checks that the matrix can be packed.
    ///
    /// # Errors
    /// [`PackError::Shape`] if rows are not whole blocks, or the size overflows.
    pub fn new(ty: BlockType, rows: usize, cols: usize) -> Result<Self, PackError> {
        let shape = || {
            ty.row_bytes(cols)?.checked_mul(rows)?;
            let strip_bytes = strip_bytes(ty, cols)?;
            let packed_bytes = rows.div_ceil(STRIP).checked_mul(strip_bytes)?;
            Some(Self { ty, rows, cols, strip_bytes, packed_bytes })
        };
        shape().ok_or(PackError::Shape { ty, rows, cols })
    }

    /// Bytes of the packed matrix.
    pub fn packed_bytes(&self) -> usize {
        self.packed_bytes
    }

    /// Strips of 16 rows, the unit in which threads share a matrix; the last may be part.
    pub fn strips(&self) -> usize {
        self.rows.div_ceil(STRIP)
    }

    /// Multiply-accumulates for one row of activations.
    pub fn macs(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }

    /// Whether its elements are floats, multiplied as such.
    pub fn is_float(&self) -> bool {
        is_float(self.ty)
    }

    pub(super) fn strip_bytes(&self) -> usize {
        self.strip_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    pub(super) fn check_source(&self, src: &[u8]) -> Result<(), PackError> {
        let want = self.ty.row_bytes(self.cols).unwrap_or(0) * self.rows;
        check("the file's tensor", src.len(), want)
    }

    pub(super) fn check_packed(&self, bytes: &[u8]) -> Result<(), PackError> {
        check("packed weights", bytes.len(), self.packed_bytes)
    }
}

fn check(what: &'static str, got: usize, want: usize) -> Result<(), PackError> {
    if got == want { Ok(()) } else { Err(PackError::Length { what, got, want }) }
}

/// A packed matrix: a shape over bytes that live elsewhere (a shared region, a cache file).
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Views `bytes`, which [`super::pack()`] has filled, as a matrix.
    ///
    /// # Errors
    /// If their length or their alignment is not right.
    pub fn from_bytes(shape: Shape, bytes: &'a [u8]) -> Result<Self, PackError> {
        shape.check_packed(bytes)?;
        if !bytes.as_ptr().addr().is_multiple_of(ALIGN) && !bytes.is_empty() {
            return Err(PackError::Alignment);
        }
        Ok(Self { shape, bytes })
    }

    /// The matrix's shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn strip(&self, strip: usize) -> &'a [u8] {
        &self.bytes[strip * self.shape.strip_bytes..][..self.shape.strip_bytes]
    }

    /// Dequantises row `row` (an embedding) into `out`.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `cols` long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.shape.rows && out.len() == self.shape.cols, "row {row} of {self:?}");
        super::portable::row(self.shape.ty, self.strip(row / STRIP), row % STRIP, out);
    }
}
