//! A few rows times a few vectors of columns, with all sums in registers.

use super::lanes::Lanes;
use super::{BESIDE, Product, Right};
use half::f16;

/// What a strip multiplies by: how a vector of the right-hand matrix is read.
trait Source: Copy {
    /// The vector at `column` of the row that begins `row` elements after the first.
    unsafe fn read<L: Lanes>(self, row: usize, column: usize) -> L;
}

impl Source for *const f32 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, row: usize, column: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(self.add(row + column)) }
    }
}

impl Source for *const f16 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, row: usize, column: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_halves(self.add(row + column)) }
    }
}

/// Matrices side by side, each `1 << shift` columns wide.
#[derive(Clone, Copy)]
struct Beside<'a> {
    blocks: &'a [*const f16; BESIDE],
    shift: u32,
}

impl Source for Beside<'_> {
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, row: usize, column: usize) -> L {
        let inside = column & ((1 << self.shift) - 1);
        // SAFETY: the caller's promise.
        unsafe { L::load_halves(self.blocks.get_unchecked(column >> self.shift).add(row + inside)) }
    }
}

/// The whole product. `WIDE` vectors are taken together of many rows, `MORE` of few: enough
/// independent chains for the multiplier's latency, and no more than there are registers.
/// `ONE` vectors are 16 columns.
///
/// # Safety
/// The matrices are as long as the product says, and the machine has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn multiply<L: Lanes, const WIDE: usize, const MORE: usize, const ONE: usize>(
    product: &Product<'_>,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match product.b {
            Right::Floats(b) => all_rows::<L, _, WIDE, MORE, ONE>(product, b.as_ptr(), c, c_stride),
            Right::Halves(b) => all_rows::<L, _, WIDE, MORE, ONE>(product, b.as_ptr(), c, c_stride),
            Right::Beside(b) => {
                let blocks = &b.map(<[f16]>::as_ptr);
                let b = Beside { blocks, shift: product.b_stride.trailing_zeros() };
                all_rows::<L, _, WIDE, MORE, ONE>(product, b, c, c_stride);
            }
        }
    }
}

#[inline(always)]
unsafe fn all_rows<L: Lanes, S: Source, const WIDE: usize, const MORE: usize, const ONE: usize>(
    product: &Product<'_>,
    b: S,
    c: *mut f32,
    c_stride: usize,
) {
    let mut row = 0;
    while row < product.rows {
        // SAFETY: the rows exist.
        unsafe {
            let a = product.a.as_ptr().add(row * product.a_stride);
            let c = c.add(row * c_stride);
            row += match product.rows - row {
                1 => columns::<L, S, 1, MORE, ONE>(product, a, b, c, c_stride),
                2 => columns::<L, S, 2, MORE, ONE>(product, a, b, c, c_stride),
                3 => columns::<L, S, 3, MORE, ONE>(product, a, b, c, c_stride),
                4 => columns::<L, S, 4, WIDE, ONE>(product, a, b, c, c_stride),
                5 => columns::<L, S, 5, WIDE, ONE>(product, a, b, c, c_stride),
                _ => columns::<L, S, 6, WIDE, ONE>(product, a, b, c, c_stride),
            };
        }
    }
}

/// All columns of `R` rows; returns `R`.
#[inline(always)]
unsafe fn columns<L: Lanes, S: Source, const R: usize, const V: usize, const ONE: usize>(
    product: &Product<'_>,
    a: *const f32,
    b: S,
    c: *mut f32,
    c_stride: usize,
) -> usize {
    let mut column = 0;
    // SAFETY: the columns exist.
    unsafe {
        while column + V * L::WIDTH <= product.columns {
            strip::<L, S, R, V>(product, a, (b, column), c.add(column), c_stride);
            column += V * L::WIDTH;
        }
        while column < product.columns {
            strip::<L, S, R, ONE>(product, a, (b, column), c.add(column), c_stride);
            column += ONE * L::WIDTH;
        }
    }
    R
}

#[inline(always)]
unsafe fn strip<L: Lanes, S: Source, const R: usize, const V: usize>(
    product: &Product<'_>,
    a: *const f32,
    (b, column): (S, usize),
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the rows and columns exist.
    unsafe {
        let mut sums = [[L::zero(); V]; R];
        if product.add {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(c.add(r * c_stride + v * L::WIDTH));
                }
            }
        }
        for k in 0..product.depth {
            let mut right = [L::zero(); V];
            for (v, right) in right.iter_mut().enumerate() {
                *right = b.read(k * product.b_stride, column + v * L::WIDTH);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = L::splat(*a.add(r * product.a_stride + k));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = sum.add_product(left, right);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(c.add(r * c_stride + v * L::WIDTH));
            }
        }
    }
}
