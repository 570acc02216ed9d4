//! A few rows times a few vectors of columns, with all sums in registers.

use super::lanes::Lanes;
use super::{BLOCKS, Layout, Product};
use crate::kernels::attention::prefetch::Ahead;
use half::f16;

/// Rows of the right-hand matrix that lie at equal distances, as one strip reads them.
struct Run<const V: usize> {
    /// The strip's vectors of the first row.
    at: [*const f16; V],
    /// Halves from one row to the next.
    stride: usize,
    rows: usize,
}

/// How the right-hand matrix is read.
trait Source: Copy {
    /// The run that begins with row `k`, for `V` vectors of `width` columns from `column` on.
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<V>;
}

/// Blocks whose columns follow one another; each has `1 << shift`.
#[derive(Clone, Copy)]
struct Beside<'a> {
    blocks: &'a [*const f16; BLOCKS],
    shift: u32,
}

impl Source for Beside<'_> {
    #[inline(always)]
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<V> {
        let at = std::array::from_fn(|v| {
            let column = column + v * width;
            let inside = column & ((1 << self.shift) - 1);
            // SAFETY: the caller's promise.
            unsafe {
                self.blocks.get_unchecked(column >> self.shift).add((k << self.shift) + inside)
            }
        });
        Run { at, stride: 1 << self.shift, rows: usize::MAX }
    }
}

/// Blocks whose rows follow one another; each has `1 << shift`, of `columns` elements.
#[derive(Clone, Copy)]
struct Stacked<'a> {
    blocks: &'a [*const f16; BLOCKS],
    shift: u32,
    /// Rows of the first block that are left out.
    first: usize,
    columns: usize,
}

impl Source for Stacked<'_> {
    #[inline(always)]
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<V> {
        let row = self.first + k;
        let inside = row & ((1 << self.shift) - 1);
        // SAFETY: the caller's promise.
        let at = unsafe {
            self.blocks.get_unchecked(row >> self.shift).add(inside * self.columns + column)
        };
        Run {
            at: std::array::from_fn(|v| at.wrapping_add(v * width)),
            stride: self.columns,
            rows: (1 << self.shift) - inside,
        }
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
    let shift = product.block_tokens.trailing_zeros();
    let blocks = &product.blocks.map(<[f16]>::as_ptr);
    // SAFETY: the caller's promises.
    unsafe {
        match product.layout {
            Layout::Beside => {
                let b = Beside { blocks, shift };
                all_rows::<L, _, WIDE, MORE, ONE>(product, b, c, c_stride);
            }
            Layout::Stacked { first } => {
                let b = Stacked { blocks, shift, first, columns: product.columns };
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
    // The first strip asks for what is read next.
    let mut ahead = Ahead::new(product.ahead, product.depth);
    while row < product.rows {
        // SAFETY: the rows exist.
        unsafe {
            let a = product.a.as_ptr().add(row * product.a_stride);
            let c = c.add(row * c_stride);
            row += match product.rows - row {
                1 => columns::<L, S, 1, MORE, ONE>(product, a, b, c, c_stride, ahead),
                2 => columns::<L, S, 2, MORE, ONE>(product, a, b, c, c_stride, ahead),
                3 => columns::<L, S, 3, MORE, ONE>(product, a, b, c, c_stride, ahead),
                4 => columns::<L, S, 4, WIDE, ONE>(product, a, b, c, c_stride, ahead),
                5 => columns::<L, S, 5, WIDE, ONE>(product, a, b, c, c_stride, ahead),
                _ => columns::<L, S, 6, WIDE, ONE>(product, a, b, c, c_stride, ahead),
            };
            ahead = Ahead::NOTHING;
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
    ahead: Ahead,
) -> usize {
    let (mut column, mut ahead) = (0, ahead);
    // SAFETY: the columns exist.
    unsafe {
        while column + V * L::WIDTH <= product.columns {
            strip::<L, S, R, V>(product, a, (b, column), c.add(column), c_stride, ahead);
            (column, ahead) = (column + V * L::WIDTH, Ahead::NOTHING);
        }
        while column < product.columns {
            strip::<L, S, R, ONE>(product, a, (b, column), c.add(column), c_stride, ahead);
            (column, ahead) = (column + ONE * L::WIDTH, Ahead::NOTHING);
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
    ahead: Ahead,
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
        let mut k = 0;
        while k < product.depth {
            let Run { mut at, stride, rows } = b.run::<V>(k, column, L::WIDTH);
            let end = product.depth.min(k.saturating_add(rows));
            while k < end {
                ahead.ask(k);
                let right = at.map(|at| L::load_halves(at));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = L::splat(*a.add(r * product.a_stride + k));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = sum.add_product(left, right);
                    }
                }
                at = at.map(|at| at.wrapping_add(stride));
                k += 1;
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(c.add(r * c_stride + v * L::WIDTH));
            }
        }
    }
}
