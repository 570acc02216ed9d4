//! The order in which strips and rows meet: weights stream once, activations stay in the cache.

use super::activations::{Activations, PANEL};
use super::format::{BLOCK, STRIP, is_float};
use super::isa::{Isa, Set};
use super::job::{BlockJob, BlockKernel, FloatJob, FloatKernel, Sink};
use super::packed::Packed;
use plumb_gguf::BlockType;
use std::marker::PhantomData;
use std::ops::Range;

/// Quantised activations that are kept in the second-level cache while a matrix goes by.
const RESIDENT_BYTES: usize = 256 << 10;

/// The rows that a matrix is multiplied by, in both forms: which one is read depends on its type.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Rows of `cols` floats, one after the other; read by F32, F16 and BF16 weights.
    pub floats: &'a [f32],
    /// The same rows, quantised; read by all other weights.
    pub blocks: Activations<'a>,
}

/// Results: one row of `stride` floats for every row of activations.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    at: *mut f32,
    len: usize,
    stride: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view of plain numbers; callers of `matmul` promise to write disjoint strips.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// Views a buffer as rows that start `stride` floats apart.
    pub fn new(buffer: &'a mut [f32], stride: usize) -> Self {
        Self { at: buffer.as_mut_ptr(), len: buffer.len(), stride, buffer: PhantomData }
    }
}

/// `out[row][r] = Σ_c w[r][c] · x[row][c]` for the rows `r` of `strips`.
///
/// Every result is summed in one fixed order, over ascending columns in one accumulator: its bits
/// depend on its row of weights and its row of activations alone, not on the batch, the strips or
/// the instruction set.
///
/// # Panics
/// If the columns differ, there is no such strip, or the output is too small.
///
/// # Safety
/// While it runs, nobody else may write these activations, or touch these strips of the output.
pub unsafe fn matmul(isa: Isa, w: &Packed, x: &Input, out: &Output, strips: Range<usize>) {
    let shape = w.shape();
    let rows = x.blocks.rows();
    assert_eq!(shape.cols, x.blocks.cols(), "columns of weights and activations");
    assert!(strips.end <= shape.strips(), "strips {strips:?} of {shape:?}");
    if rows == 0 || strips.is_empty() {
        return;
    }
    let room = out.stride.checked_mul(rows - 1).and_then(|n| n.checked_add(shape.rows));
    assert!(
        out.stride >= shape.rows && room.is_some_and(|room| room <= out.len),
        "output {out:?} for {rows} rows of {shape:?}"
    );
    // SAFETY: sizes are checked; the caller grants exclusive use.
    unsafe {
        if is_float(shape.ty) {
            assert_eq!(x.floats.len(), rows * shape.cols, "floats of {rows} rows of {shape:?}");
            floats(isa, w, x, out, strips);
        } else {
            blocks(isa, w, x, out, strips);
        }
    }
}

/// # Safety
/// As [`matmul`], whose checks have been made.
unsafe fn blocks(isa: Isa, w: &Packed, x: &Input, out: &Output, strips: Range<usize>) {
    let shape = w.shape();
    let panels = x.blocks.rows().div_ceil(PANEL);
    let resident = (RESIDENT_BYTES / Activations::bytes(PANEL, shape.cols).max(1)).max(1);
    for first in (0..panels).step_by(resident) {
        for strip in strips.clone() {
            for panel in first..panels.min(first + resident) {
                let (records, step) = x.blocks.panel(panel);
                let mut row = 0;
                while row < step {
                    let (taken, kernel) = block_kernel(isa, shape.ty, step - row);
                    let job = BlockJob {
                        w: w.strip(strip).as_ptr(),
                        x: records.wrapping_add(row),
                        step,
                        blocks: shape.cols / BLOCK,
                        out: out.sink(panel * PANEL + row, strip, shape.rows),
                    };
                    // SAFETY: the strip, the panel's rows and the output's rows exist.
                    unsafe { kernel(&job) };
                    row += taken;
                }
            }
        }
    }
}

/// # Safety
/// As [`matmul`], whose checks have been made.
unsafe fn floats(isa: Isa, w: &Packed, x: &Input, out: &Output, strips: Range<usize>) {
    let shape = w.shape();
    for strip in strips {
        let mut row = 0;
        while row < x.blocks.rows() {
            let (taken, kernel) = float_kernel(isa, shape.ty, x.blocks.rows() - row);
            let job = FloatJob {
                w: w.strip(strip).as_ptr(),
                x: x.floats[row * shape.cols..].as_ptr(),
                step: shape.cols,
                cols: shape.cols,
                out: out.sink(row, strip, shape.rows),
            };
            // SAFETY: the strip and the rows exist.
            unsafe { kernel(&job) };
            row += taken;
        }
    }
}

impl Output<'_> {
    fn sink(&self, row: usize, strip: usize, rows: usize) -> Sink {
        let at = self.at.wrapping_add(row * self.stride + strip * STRIP);
        Sink { at, stride: self.stride, live: (rows - strip * STRIP).min(STRIP) }
    }
}

/// The kernel that takes the most of `rows` rows, and how many it takes.
fn block_kernel(isa: Isa, ty: BlockType, rows: usize) -> (usize, BlockKernel) {
    match isa.0 {
        Set::Portable => super::portable::block_kernel(ty, rows),
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => super::avx2::block_kernel(ty, rows),
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => super::avx512::block_kernel(ty, rows),
    }
}

/// As [`block_kernel`], for floats.
fn float_kernel(isa: Isa, ty: BlockType, rows: usize) -> (usize, FloatKernel) {
    match isa.0 {
        Set::Portable => super::portable::float_kernel(ty, rows),
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => super::avx2::float_kernel(ty, rows),
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => super::avx512::float_kernel(ty, rows),
    }
}
