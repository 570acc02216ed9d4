//! Rows of activations, quantised once and read by every matrix that multiplies them.
//!
//! A row is cut into blocks of 32 columns, each with its own scale `d = max |x| / 127` and signed
//! bytes `q = x / d`, rounded to nearest, ties to even. Rows lie in **panels** of up to [`PANEL`]
//! rows; within a panel, the records of block 0 of all its rows come first, then those of block 1: a
//! kernel that takes several rows at a time finds them side by side.

use super::format::BLOCK;
use super::isa::{Isa, Set};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Rows in a full panel: a multiple of what any kernel takes at a time.
pub(crate) const PANEL: usize = 24;

/// Blocks whose largest magnitude is below this count as zero: their scale's inverse would overflow.
pub(crate) const TINY: f32 = 1e-30;

/// 32 columns of one row.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    /// −127 to 127: no kernel may see −128, whose magnitude would overflow 16-bit sums.
    pub q: [i8; BLOCK],
    /// The scale. NaN where a column was not finite: it poisons what is computed from the row.
    pub d: f32,
    /// `d · Σ q`, for types that have minimums.
    pub ds: f32,
    /// `−Σ q`, for types whose codes are stored with an offset.
    pub neg_sum: i32,
    /// The same of the upper 16 columns.
    pub neg_high: i32,
}

impl Block {
    pub(super) const ZERO: Self = Self { q: [0; BLOCK], d: 0.0, ds: 0.0, neg_sum: 0, neg_high: 0 };
    pub(super) const POISON: Self = Self { d: f32::NAN, ds: f32::NAN, ..Self::ZERO };
}

/// A buffer cannot hold the rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rows} rows of {cols} activations take {want} bytes aligned to 16; the buffer has {got} at an \
     offset of {offset}"
)]
pub struct ActivationsError {
    rows: usize,
    cols: usize,
    want: usize,
    got: usize,
    offset: usize,
}

/// Quantised rows in a buffer of the caller's. A plain view: copies see the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    blocks: NonNull<Block>,
    rows: usize,
    cols: usize,
    buffer: PhantomData<&'a mut [u8]>,
}

// SAFETY: a view of plain numbers; whoever writes promises to `quantize_row` that nobody else does.
unsafe impl Send for Activations<'_> {}
// SAFETY: as above.
unsafe impl Sync for Activations<'_> {}

impl<'a> Activations<'a> {
    /// Bytes of buffer for `rows` rows of `cols` columns.
    pub const fn bytes(rows: usize, cols: usize) -> usize {
        rows * cols.div_ceil(BLOCK) * size_of::<Block>()
    }

    /// Lays rows over a buffer, whose contents stay as they are until rows are quantised.
    ///
    /// # Errors
    /// If the buffer is shorter than [`Self::bytes`] or not aligned to 16.
    pub fn over(buffer: &'a mut [u8], rows: usize, cols: usize) -> Result<Self, ActivationsError> {
        let want = Self::bytes(rows, cols);
        let offset = buffer.as_ptr().addr() % align_of::<Block>();
        if buffer.len() < want || (offset != 0 && want != 0) {
            return Err(ActivationsError { rows, cols, want, got: buffer.len(), offset });
        }
        let blocks = NonNull::from(buffer).cast();
        Ok(Self { blocks, rows, cols, buffer: PhantomData })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Quantises `x` into row `row`.
    ///
    /// A block with a NaN or an infinity poisons the row: what is computed from it is NaN.
    ///
    /// # Panics
    /// If there is no such row, or `x` is not `cols` long.
    ///
    /// # Safety
    /// While it runs, nobody else may read or write this row.
    pub unsafe fn quantize_row(&self, isa: Isa, row: usize, x: &[f32]) {
        assert!(row < self.rows && x.len() == self.cols, "row {row} of {self:?}");
        let (first, step) = self.row(row);
        // SAFETY: `row` is in range, so its records are inside the buffer, `step` apart, and the
        // caller says that they are ours; `isa` is proof that the machine has the instructions.
        unsafe {
            match isa.0 {
                Set::Portable => super::portable::quantize(x, first, step),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => super::avx2::quantize(x, first, step),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => super::avx512::quantize(x, first, step),
            }
        }
    }

    /// Quantises all rows of `x`, which lie one after the other.
    ///
    /// # Panics
    /// If `x` is not `rows` × `cols` long.
    pub fn quantize(&mut self, isa: Isa, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.cols, "rows of {self:?}");
        for (row, x) in x.chunks_exact(self.cols.max(1)).enumerate() {
            // SAFETY: `&mut self`; copies of the view are used by callers of unsafe functions only.
            unsafe { self.quantize_row(isa, row, x) };
        }
    }

    /// The first record of a row, and the distance to its next one.
    fn row(&self, row: usize) -> (*mut Block, usize) {
        let (panel, step) = self.panel(row / PANEL);
        (panel.wrapping_add(row % PANEL), step)
    }

    /// A panel's first record, and how many rows it has.
    pub(super) fn panel(&self, panel: usize) -> (*mut Block, usize) {
        let before = panel * PANEL;
        let rows = (self.rows - before).min(PANEL);
        (self.blocks.as_ptr().wrapping_add(before * self.cols.div_ceil(BLOCK)), rows)
    }
}

/// Hands over a row's blocks by their numbers; the columns that the last one lacks are zeros.
#[inline(always)]
pub(super) fn each_block(x: &[f32], mut quantize: impl FnMut(usize, &[f32; BLOCK])) {
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for (i, block) in blocks.iter().enumerate() {
        quantize(i, block);
    }
    if !rest.is_empty() {
        let mut padded = [0.0; BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        quantize(blocks.len(), &padded);
    }
}
