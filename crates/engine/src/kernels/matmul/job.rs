//! What a kernel is told: one strip of weights, a few rows of activations, where the results go.

use super::activations::Block;
use super::format::STRIP;

/// A strip of block-quantised weights against `T` quantised rows.
pub(super) struct BlockJob {
    pub w: *const u8,
    /// The first row's first record; the rows follow one another.
    pub x: *const Block,
    /// Records from one block of a row to the next.
    pub step: usize,
    /// Blocks in a row.
    pub blocks: usize,
    pub out: Sink,
}

/// A strip of float weights against `T` rows of floats.
pub(super) struct FloatJob {
    pub w: *const u8,
    pub x: *const f32,
    /// Floats from one row to the next.
    pub step: usize,
    pub cols: usize,
    pub out: Sink,
}

/// Where the 16 results of each row go.
#[derive(Clone, Copy)]
pub(super) struct Sink {
    pub at: *mut f32,
    /// Floats from one row's results to the next row's.
    pub stride: usize,
    /// How many of a strip's 16 rows exist.
    pub live: usize,
}

impl Sink {
    /// Writes row `t`'s results.
    ///
    /// # Safety
    /// `at` must be writable for `live` floats at `t` strides.
    #[inline(always)]
    pub unsafe fn put(&self, t: usize, lanes: &[f32; STRIP]) {
        // SAFETY: the caller's.
        unsafe {
            let at = self.at.add(t * self.stride);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), at, self.live.min(STRIP));
        }
    }
}

/// A kernel of some number of rows, for some type.
///
/// # Safety
/// The job's pointers must be valid for what its numbers say, and the machine must have the
/// instructions that the kernel was compiled for.
pub(super) type BlockKernel = unsafe fn(&BlockJob);
/// As [`BlockKernel`], for floats.
pub(super) type FloatKernel = unsafe fn(&FloatJob);
