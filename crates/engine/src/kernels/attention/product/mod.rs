//! The one product of attention: a few rows times a matrix, for q·K and for p·V.
//!
//! `strip` is the product of a few rows with a few vectors of columns, written once over
//! [`lanes::Lanes`]; a file an instruction set says what its lanes are. Every element is a chain of
//! fused multiply-adds in one lane, so that all sets give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod portable;
mod strip;

use crate::kernels::level::Level;
use half::f16;

/// Columns come in multiples of this.
pub(crate) const COLUMNS: usize = 16;

/// Matrices that can stand side by side.
pub(crate) const BESIDE: usize = 4;

/// The right-hand matrix.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Converted before, for many rows.
    Floats(&'a [f32]),
    /// As the cache has it.
    Halves(&'a [f16]),
    /// Matrices of `b_stride` columns side by side, as the cache has the keys of several blocks:
    /// as many as the columns need, the rest anything.
    Beside([&'a [f16]; BESIDE]),
}

/// `c[r][j] = Σ_k a[r][k] b[k][j]`, k ascending, one fused multiply-add each.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `rows` rows, `a_stride` apart.
    pub(crate) a: &'a [f32],
    pub(crate) a_stride: usize,
    /// `depth` rows of `columns` elements, `b_stride` apart.
    pub(crate) b: Right<'a>,
    pub(crate) b_stride: usize,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    /// A multiple of [`COLUMNS`].
    pub(crate) columns: usize,
    /// Whether the sums go on from what `c` holds, instead of from zero.
    pub(crate) add: bool,
}

/// Writes a product to `c`, whose rows are `c_stride` apart.
pub(crate) fn multiply(level: Level, product: Product<'_>, c: &mut [f32], c_stride: usize) {
    let Product { a, a_stride, b, b_stride, rows, depth, columns, .. } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    let whole = |len: usize| depth == 0 || len >= (depth - 1) * b_stride + columns;
    let b_fits = match b {
        Right::Floats(b) => whole(b.len()),
        Right::Halves(b) => whole(b.len()),
        Right::Beside(b) => {
            let used = columns.div_ceil(b_stride);
            b_stride.is_power_of_two()
                && b_stride >= COLUMNS
                && used <= BESIDE
                && b[..used].iter().all(|b| b.len() >= depth * b_stride)
        }
    };
    assert!(columns.is_multiple_of(COLUMNS));
    assert!(a.len() >= (rows - 1) * a_stride + depth, "rows of a");
    assert!(b_fits, "rows of b");
    assert!(c.len() >= (rows - 1) * c_stride + columns, "rows of c");
    let c = c.as_mut_ptr();
    // SAFETY: the slices hold what the sizes say, and a level is proof of its instructions.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::multiply(&product, c, c_stride),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::multiply(&product, c, c_stride),
            Level::Portable => portable::multiply(&product, c, c_stride),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::slice::HalfFloatSliceExt;

    fn value(i: usize) -> f32 {
        ((i * 7919 % 211) as f32 - 100.0) / 64.0
    }

    #[test]
    fn adds_in_order_on_every_level() {
        for rows in 1..=14 {
            for (depth, columns) in [(0, 16), (1, 16), (5, 32), (64, 64), (7, 80), (3, 256)] {
                for add in [false, true] {
                    check(rows, depth, columns, add);
                }
            }
        }
    }

    fn check(rows: usize, depth: usize, columns: usize, add: bool) {
        let a: Vec<f32> = (0..rows * depth).map(value).collect();
        let b: Vec<f32> = (0..depth * columns).map(|i| value(i + 13)).collect();
        let mut halves = vec![f16::ZERO; b.len()];
        halves.convert_from_f32_slice(&b);
        let start: Vec<f32> = (0..rows * columns).map(|i| value(i + 5)).collect();
        let mut want = if add { start.clone() } else { vec![0.0; start.len()] };
        for (i, c) in want.iter_mut().enumerate() {
            let (r, j) = (i / columns, i % columns);
            for k in 0..depth {
                *c = a[r * depth + k].mul_add(b[k * columns + j], *c);
            }
        }
        for level in Level::all() {
            // The values are multiples of 1/64 below 2: exact as halves too.
            for right in [Right::Floats(&b), Right::Halves(&halves)] {
                let sizes = (rows, depth, columns);
                let product = Product {
                    a: &a,
                    a_stride: depth,
                    b: right,
                    b_stride: columns,
                    rows,
                    depth,
                    columns,
                    add,
                };
                let mut c = start.clone();
                multiply(level, product, &mut c, columns);
                assert_eq!(c, want, "{level:?} {sizes:?} add: {add}");
            }
            for width in [16, 32, 64] {
                if columns > BESIDE * width {
                    continue;
                }
                let blocks = beside(&halves, depth, columns, width);
                let product = Product {
                    a: &a,
                    a_stride: depth,
                    b: Right::Beside(blocks.each_ref().map(Vec::as_slice)),
                    b_stride: width,
                    rows,
                    depth,
                    columns,
                    add,
                };
                let mut c = start.clone();
                multiply(level, product, &mut c, columns);
                assert_eq!(c, want, "{level:?} blocks of {width} columns");
            }
        }
    }

    /// The columns of `b` in blocks of `width`.
    fn beside(b: &[f16], depth: usize, columns: usize, width: usize) -> [Vec<f16>; BESIDE] {
        std::array::from_fn(|block| {
            let mut out = vec![f16::NAN; depth * width];
            for k in 0..depth {
                for j in 0..width {
                    let column = block * width + j;
                    if column < columns {
                        out[k * width + j] = b[k * columns + column];
                    }
                }
            }
            out
        })
    }
}
