//! The one product of attention: a few rows times a matrix of f32, for q·K and for p·V.

use crate::kernels::level::versions;

/// Columns that a step works on.
pub(crate) const COLUMNS: usize = 16;
/// Rows that a step works on: with 16 columns they fill AVX2's registers.
const ROWS: usize = 6;

/// `c[r][j] += Σ_k a[r][k] b[k][j]`, k ascending, one fused multiply-add each.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `rows` rows, `a_stride` apart.
    pub(crate) a: &'a [f32],
    pub(crate) a_stride: usize,
    /// `depth` rows of `columns` elements, `b_stride` apart.
    pub(crate) b: &'a [f32],
    pub(crate) b_stride: usize,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    /// A multiple of [`COLUMNS`].
    pub(crate) columns: usize,
}

versions! {
    /// Adds a product to `c`, whose rows are `c_stride` apart.
    pub(crate) fn multiply(product: Product<'_>, c: &mut [f32], c_stride: usize) = body
}

#[inline(always)]
fn body(product: Product<'_>, c: &mut [f32], c_stride: usize) {
    let mut row = 0;
    while row + ROWS <= product.rows {
        strip::<ROWS>(&product, row, c, c_stride);
        row += ROWS;
    }
    match product.rows - row {
        1 => strip::<1>(&product, row, c, c_stride),
        2 => strip::<2>(&product, row, c, c_stride),
        3 => strip::<3>(&product, row, c, c_stride),
        4 => strip::<4>(&product, row, c, c_stride),
        5 => strip::<5>(&product, row, c, c_stride),
        _ => {}
    }
}

#[inline(always)]
fn strip<const R: usize>(p: &Product<'_>, first: usize, c: &mut [f32], c_stride: usize) {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &p.a[(first + r) * p.a_stride..][..p.depth]);
    for column in (0..p.columns).step_by(COLUMNS) {
        let mut sums: [[f32; COLUMNS]; R] = std::array::from_fn(|r| {
            let at = (first + r) * c_stride + column;
            std::array::from_fn(|lane| c[at..at + COLUMNS][lane])
        });
        let b = &p.b[column..];
        for k in 0..p.depth {
            let b = &b[k * p.b_stride..][..COLUMNS];
            for r in 0..R {
                let a = rows[r][k];
                for lane in 0..COLUMNS {
                    sums[r][lane] = a.mul_add(b[lane], sums[r][lane]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            c[(first + r) * c_stride + column..][..COLUMNS].copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    #[test]
    fn adds_in_order_on_every_level() {
        let value = |i: usize| ((i * 7919 % 211) as f32 - 100.0) / 64.0;
        for rows in 1..=14 {
            for (depth, columns) in [(1, 16), (5, 32), (64, 64)] {
                let a: Vec<f32> = (0..rows * depth).map(value).collect();
                let b: Vec<f32> = (0..depth * columns).map(|i| value(i + 13)).collect();
                let mut want: Vec<f32> = (0..rows * columns).map(|i| value(i + 5)).collect();
                let start = want.clone();
                for r in 0..rows {
                    for j in 0..columns {
                        for k in 0..depth {
                            let c = &mut want[r * columns + j];
                            *c = a[r * depth + k].mul_add(b[k * columns + j], *c);
                        }
                    }
                }
                for level in Level::all() {
                    let product = Product {
                        a: &a,
                        a_stride: depth,
                        b: &b,
                        b_stride: columns,
                        rows,
                        depth,
                        columns,
                    };
                    let mut c = start.clone();
                    multiply(level, product, &mut c, columns);
                    assert_eq!(c, want, "{level:?} {rows} x {depth} x {columns}");
                }
            }
        }
    }
}
