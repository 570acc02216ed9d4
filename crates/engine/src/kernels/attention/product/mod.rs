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

use super::CHUNK;
use crate::kernels::level::Level;
pub(crate) use lanes::Element;

/// Columns come in multiples of this.
pub(crate) const COLUMNS: usize = 16;

/// Blocks of a chunk at most.
pub(crate) const BLOCKS: usize = CHUNK / 16;

/// How the blocks make up the right-hand matrix.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Side by side, as keys: each has `block_tokens` columns of `depth` rows.
    Beside,
    /// One below the other, as values: each has `block_tokens` rows; those before row `first` of the
    /// first are left out.
    Stacked { first: usize },
}

/// `c[r][j] = Σ_k a[r][k] b[k][j]`, k ascending, one fused multiply-add each.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, E> {
    /// `rows` rows, `a_stride` apart.
    pub(crate) a: &'a [f32],
    pub(crate) a_stride: usize,
    /// The right-hand matrix, as the cache has it: as many blocks as it needs, the rest anything.
    pub(crate) blocks: [&'a [E]; BLOCKS],
    pub(crate) layout: Layout,
    /// Tokens a block: 16, 32 or 64.
    pub(crate) block_tokens: usize,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    /// A multiple of [`COLUMNS`].
    pub(crate) columns: usize,
    /// Whether the sums go on from what `c` holds, instead of from zero.
    pub(crate) add: bool,
    /// What will be read next.
    pub(crate) ahead: &'a [&'a [E]; BLOCKS],
}

/// No blocks.
pub(crate) fn no_blocks<'a, E>() -> [&'a [E]; BLOCKS] {
    [&[]; BLOCKS]
}

/// Writes a product to `c`, whose rows are `c_stride` apart.
pub(crate) fn multiply<E: Element>(
    level: Level,
    product: Product<'_, E>,
    c: &mut [f32],
    c_stride: usize,
) {
    let Product { a, a_stride, blocks, block_tokens, rows, depth, columns, .. } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    let (used, len) = match product.layout {
        Layout::Beside => (columns.div_ceil(block_tokens), depth * block_tokens),
        Layout::Stacked { first } => {
            assert!(first < block_tokens, "rows left out");
            ((first + depth).div_ceil(block_tokens), block_tokens * columns)
        }
    };
    assert!(block_tokens.is_power_of_two() && block_tokens >= COLUMNS);
    assert!(used <= BLOCKS && blocks[..used].iter().all(|b| b.len() >= len), "blocks of b");
    assert!(columns.is_multiple_of(COLUMNS));
    assert!(a.len() >= (rows - 1) * a_stride + depth, "rows of a");
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
    use half::f16;

    fn value(i: usize) -> f32 {
        ((i * 7919 % 211) as f32 - 100.0) / 64.0
    }

    #[test]
    fn adds_in_order_on_every_level() {
        for rows in [1, 2, 3, 4, 5, 6, 7, 14] {
            for block_tokens in [16, 32, 64] {
                for add in [false, true] {
                    for (depth, columns) in [(1, 16), (5, 32), (64, 64), (7, 48)] {
                        check_both(rows, depth, columns, block_tokens, Layout::Beside, add);
                    }
                    for (first, depth) in [(0, 1), (15, 1), (3, 13), (0, 64), (9, 30)] {
                        for columns in [16, 80, 256] {
                            let layout = Layout::Stacked { first };
                            check_both(rows, depth, columns, block_tokens, layout, add);
                        }
                    }
                }
            }
        }
    }

    fn check_both(
        rows: usize,
        depth: usize,
        columns: usize,
        block_tokens: usize,
        layout: Layout,
        add: bool,
    ) {
        let sizes = (rows, depth, columns, block_tokens);
        // Multiples of 1/64 below 2 are exact in halves, and 64 times as much is in bytes.
        check(sizes, layout, add, f16::NAN, f16::from_f32);
        check(sizes, layout, add, 77, |x| (x * 64.0) as i8);
    }

    fn check<E: Element + Into<f32>>(
        (rows, depth, columns, block_tokens): (usize, usize, usize, usize),
        layout: Layout,
        add: bool,
        outside: E,
        narrow: fn(f32) -> E,
    ) {
        let a: Vec<f32> = (0..rows * depth).map(value).collect();
        let b: Vec<f32> = (0..depth * columns).map(|i| value(i + 13)).collect();
        let start: Vec<f32> = (0..rows * columns).map(|i| value(i + 5)).collect();
        let mut want = if add { start.clone() } else { vec![0.0; start.len()] };
        for (i, c) in want.iter_mut().enumerate() {
            let (r, j) = (i / columns, i % columns);
            for k in 0..depth {
                *c = a[r * depth + k].mul_add(narrow(b[k * columns + j]).into(), *c);
            }
        }
        let b: Vec<E> = b.into_iter().map(narrow).collect();
        let blocks = blocks(&b, depth, columns, block_tokens, layout, outside);
        let blocks = blocks.each_ref().map(Vec::as_slice);
        for level in Level::all() {
            for ahead in [no_blocks(), blocks] {
                let product = Product {
                    a: &a,
                    a_stride: depth,
                    blocks,
                    layout,
                    block_tokens,
                    rows,
                    depth,
                    columns,
                    add,
                    ahead: &ahead,
                };
                let mut c = start.clone();
                multiply(level, product, &mut c, columns);
                assert_eq!(c, want, "{level:?} {rows} {depth} {columns} {block_tokens} add: {add}");
            }
        }
    }

    /// `b` in blocks; what is not of `b` is `outside`.
    fn blocks<E: Copy>(
        b: &[E],
        depth: usize,
        columns: usize,
        tokens: usize,
        layout: Layout,
        outside: E,
    ) -> [Vec<E>; BLOCKS] {
        let (len, first) = match layout {
            Layout::Beside => (depth * tokens, 0),
            Layout::Stacked { first } => (tokens * columns, first),
        };
        let mut out: [Vec<E>; BLOCKS] = std::array::from_fn(|_| vec![outside; len]);
        for k in 0..depth {
            for j in 0..columns {
                let (block, at) = match layout {
                    Layout::Beside => (j / tokens, k * tokens + j % tokens),
                    Layout::Stacked { .. } => {
                        ((first + k) / tokens, (first + k) % tokens * columns + j)
                    }
                };
                out[block][at] = b[k * columns + j];
            }
        }
        out
    }
}
