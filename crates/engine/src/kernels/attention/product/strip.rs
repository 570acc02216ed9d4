//! A few rows times a few vectors of columns, with all sums in registers.

use super::lanes::{Element, Lanes, Pair};
use super::{BLOCKS, Layout, Product, SECTION_PAIRS};
use crate::kernels::attention::prefetch::Ahead;

/// Rows of pairs of the right-hand matrix that lie at equal distances, as one strip reads them.
struct Run<E, const V: usize> {
    /// The strip's vectors of the first row.
    at: [*const Pair<E>; V],
    /// Pairs from one row to the next.
    stride: usize,
    rows: usize,
}

/// A few rows of the left-hand matrix.
#[derive(Clone, Copy)]
struct Left {
    pairs: *const Pair<i16>,
    factors: *const f32,
    keep: Option<*const f32>,
}

/// How the right-hand matrix is read.
trait Source<E>: Copy {
    /// The run that begins with row `k`, for `V` vectors of `width` columns from `column` on.
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<E, V>;
}

/// Blocks whose columns follow one another; each has `1 << shift`.
#[derive(Clone, Copy)]
struct Beside<'a, E> {
    blocks: &'a [*const Pair<E>; BLOCKS],
    shift: u32,
}

impl<E: Element> Source<E> for Beside<'_, E> {
    #[inline(always)]
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<E, V> {
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

/// Blocks whose rows follow one another; each has `1 << shift`, of `columns` pairs.
#[derive(Clone, Copy)]
struct Stacked<'a, E> {
    blocks: &'a [*const Pair<E>; BLOCKS],
    shift: u32,
    /// Rows of the first block that are left out.
    first: usize,
    columns: usize,
}

impl<E: Element> Source<E> for Stacked<'_, E> {
    #[inline(always)]
    unsafe fn run<const V: usize>(self, k: usize, column: usize, width: usize) -> Run<E, V> {
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
pub(super) unsafe fn multiply<
    E: Element,
    L: Lanes,
    const WIDE: usize,
    const MORE: usize,
    const ONE: usize,
>(
    product: &Product<'_, E>,
    c: *mut f32,
    c_stride: usize,
) {
    let shift = product.block_tokens.trailing_zeros();
    let blocks = &product.blocks.map(<[Pair<E>]>::as_ptr);
    // SAFETY: the caller's promises.
    unsafe {
        match product.layout {
            Layout::Beside => {
                let b = Beside { blocks, shift };
                all_rows::<E, L, _, WIDE, MORE, ONE>(product, b, c, c_stride);
            }
            Layout::Stacked { first } => {
                let (shift, columns) = (shift - 1, product.columns);
                let b = Stacked { blocks, shift, first, columns };
                all_rows::<E, L, _, WIDE, MORE, ONE>(product, b, c, c_stride);
            }
        }
    }
}

#[inline(always)]
unsafe fn all_rows<
    E: Element,
    L: Lanes,
    S: Source<E>,
    const WIDE: usize,
    const MORE: usize,
    const ONE: usize,
>(
    product: &Product<'_, E>,
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
            let keep = product.keep.map(|keep| keep.as_ptr().add(row));
            let a = Left { pairs: a, factors: product.factors.as_ptr().add(row), keep };
            let c = c.add(row * c_stride);
            row += match product.rows - row {
                1 => columns::<E, L, S, 1, MORE, ONE>(product, a, b, c, c_stride, ahead),
                2 => columns::<E, L, S, 2, MORE, ONE>(product, a, b, c, c_stride, ahead),
                3 => columns::<E, L, S, 3, MORE, ONE>(product, a, b, c, c_stride, ahead),
                4 => columns::<E, L, S, 4, WIDE, ONE>(product, a, b, c, c_stride, ahead),
                5 => columns::<E, L, S, 5, WIDE, ONE>(product, a, b, c, c_stride, ahead),
                _ => columns::<E, L, S, 6, WIDE, ONE>(product, a, b, c, c_stride, ahead),
            };
            ahead = Ahead::NOTHING;
        }
    }
}

/// All columns of `R` rows; returns `R`.
#[inline(always)]
unsafe fn columns<
    E: Element,
    L: Lanes,
    S: Source<E>,
    const R: usize,
    const V: usize,
    const ONE: usize,
>(
    product: &Product<'_, E>,
    a: Left,
    b: S,
    c: *mut f32,
    c_stride: usize,
    ahead: Ahead,
) -> usize {
    let (mut column, mut ahead) = (0, ahead);
    // SAFETY: the columns exist.
    unsafe {
        while column + V * L::WIDTH <= product.columns {
            strip::<E, L, S, R, V>(product, a, (b, column), c.add(column), c_stride, ahead);
            (column, ahead) = (column + V * L::WIDTH, Ahead::NOTHING);
        }
        while column < product.columns {
            strip::<E, L, S, R, ONE>(product, a, (b, column), c.add(column), c_stride, ahead);
            (column, ahead) = (column + ONE * L::WIDTH, Ahead::NOTHING);
        }
    }
    R
}

#[inline(always)]
unsafe fn strip<E: Element, L: Lanes, S: Source<E>, const R: usize, const V: usize>(
    product: &Product<'_, E>,
    a: Left,
    (b, column): (S, usize),
    c: *mut f32,
    c_stride: usize,
    ahead: Ahead,
) {
    let (mut k, depth) = (0, product.depth);
    // SAFETY: the rows and columns exist.
    unsafe {
        while k < depth {
            let mut sums = [[L::zero(); V]; R];
            let section = depth.min(k + SECTION_PAIRS);
            let first = k == 0;
            while k < section {
                let Run { mut at, stride, rows } = b.run::<V>(k, column, L::WIDTH);
                let end = section.min(k.saturating_add(rows));
                while k < end {
                    ahead.ask(k);
                    let right = at.map(|at| E::load::<L>(at));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = L::repeat(a.pairs.add(r * product.a_stride + k));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = sum.add_products(left, right);
                        }
                    }
                    at = at.map(|at| at.wrapping_add(stride));
                    k += 1;
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let factor = a.factors.add(r).read();
                let keep = if first { a.keep.map(|keep| keep.add(r).read()) } else { Some(1.0) };
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(factor, keep, c.add(r * c_stride + v * L::WIDTH));
                }
            }
        }
    }
}
