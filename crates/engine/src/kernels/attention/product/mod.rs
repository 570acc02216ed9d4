//! The one product of attention: a few rows times a matrix, for q·K and for p·V.
//!
//! `strip` is the product of a few rows with a few vectors of columns, written once over
//! [`lanes::Lanes`]; a file an instruction set says what its lanes are. Sums of integers are exact, and
//! each element is then one fused multiply-add a section, so that all sets give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod portable;
mod strip;

use super::{CHUNK, SECTION};
use crate::kernels::level::Level;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::add_word_products;
pub(crate) use lanes::{Element, Pair};

/// Columns come in multiples of this.
pub(crate) const COLUMNS: usize = 16;

/// Blocks of a chunk at most.
pub(crate) const BLOCKS: usize = CHUNK / 16;

/// Pairs of a section.
const SECTION_PAIRS: usize = SECTION / 2;

/// How the blocks make up the right-hand matrix.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Side by side, as keys: each has `block_tokens` columns of `depth` rows.
    Beside,
    /// One below the other, as values: each has `block_tokens / 2` rows; those before row `first` of the
    /// first are left out.
    Stacked { first: usize },
}

/// `c[r][j] = factors[r] Σ_k a[r][k]·b[k][j]`, of pairs, by sections of `k`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, E> {
    /// `rows` rows, `a_stride` apart.
    pub(crate) a: &'a [Pair<i16>],
    pub(crate) a_stride: usize,
    /// One a row.
    pub(crate) factors: &'a [f32],
    /// The right-hand matrix, as the cache has it: as many blocks as it needs, the rest anything.
    pub(crate) blocks: [&'a [Pair<E>]; BLOCKS],
    pub(crate) layout: Layout,
    /// Tokens a block: 16, 32 or 64.
    pub(crate) block_tokens: usize,
    pub(crate) rows: usize,
    /// Pairs that are summed.
    pub(crate) depth: usize,
    /// A multiple of [`COLUMNS`].
    pub(crate) columns: usize,
    /// What each row of `c` is multiplied by before sums are added to it; none: it becomes zero.
    pub(crate) keep: Option<&'a [f32]>,
    /// What will be read next.
    pub(crate) ahead: &'a [&'a [u8]; BLOCKS],
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
    assert!(block_tokens.is_power_of_two() && block_tokens >= COLUMNS && depth > 0);
    let (used, len) = match product.layout {
        Layout::Beside => (columns.div_ceil(block_tokens), depth * block_tokens),
        Layout::Stacked { first } => {
            let block_rows = block_tokens / 2;
            assert!(first < block_rows, "rows left out");
            ((first + depth).div_ceil(block_rows), block_rows * columns)
        }
    };
    assert!(used <= BLOCKS && blocks[..used].iter().all(|b| b.len() >= len), "blocks of b");
    assert!(columns.is_multiple_of(COLUMNS));
    assert!(a.len() >= (rows - 1) * a_stride + depth, "rows of a");
    let one_a_row = |factors: &[f32]| factors.len() >= rows;
    assert!(one_a_row(product.factors) && product.keep.is_none_or(one_a_row), "factors of rows");
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

    /// Of 15 bits.
    fn value(i: usize) -> i16 {
        (i * 7919 % 32_749) as i16 - 16_374
    }

    fn factor(row: usize) -> f32 {
        0.013 + row as f32
    }

    #[test]
    fn adds_exactly_on_every_level() {
        for rows in [1, 2, 3, 4, 5, 6, 7, 14] {
            for block_tokens in [16, 32, 64] {
                for keep in [false, true] {
                    for (depth, columns) in [(1, 16), (5, 32), (32, 64), (33, 48), (128, 16)] {
                        check_both(rows, depth, columns, block_tokens, Layout::Beside, keep);
                    }
                    for (first, depth) in [(0, 1), (7, 1), (3, 13), (0, 32), (5, 15)] {
                        for columns in [16, 80, 256] {
                            let layout = Layout::Stacked { first };
                            check_both(rows, depth, columns, block_tokens, layout, keep);
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
        keep: bool,
    ) {
        let sizes = (rows, depth, columns, block_tokens);
        check::<i16>(sizes, layout, keep, |x| x);
        check::<i8>(sizes, layout, keep, |x| (x >> 7) as i8);
    }

    fn check<E: Element + Into<i32>>(
        (rows, depth, columns, block_tokens): (usize, usize, usize, usize),
        layout: Layout,
        keep: bool,
        narrow: fn(i16) -> E,
    ) {
        // Small enough on the left for sums in 32 bits.
        let a: Vec<Pair<i16>> =
            (0..rows * depth).map(|i| [value(2 * i) / 16, value(2 * i + 1) / 16]).collect();
        let b: Vec<Pair<E>> = (0..depth * columns)
            .map(|i| [2 * i + 13, 2 * i + 14].map(|i| narrow(value(i))))
            .collect();
        let factors: Vec<f32> = (0..rows).map(factor).collect();
        let start: Vec<f32> = (0..rows * columns).map(|i| f32::from(value(i + 5))).collect();
        let corrections: Vec<f32> = (0..rows).map(|row| 1.0 / (row + 1) as f32).collect();
        let mut want = if keep { start.clone() } else { vec![0.0; start.len()] };
        for (i, c) in want.iter_mut().enumerate() {
            let (r, j) = (i / columns, i % columns);
            *c *= corrections[r];
            for section in (0..depth).step_by(SECTION_PAIRS) {
                let pairs = section..depth.min(section + SECTION_PAIRS);
                let sum: i64 = pairs
                    .flat_map(|k| [0, 1].map(|i| (a[r * depth + k][i], b[k * columns + j][i])))
                    .map(|(a, b)| i64::from(a) * i64::from(b.into()))
                    .sum();
                *c = factors[r].mul_add(i32::try_from(sum).unwrap() as f32, *c);
            }
        }
        let blocks = blocks(&b, depth, columns, block_tokens, layout, narrow(i16::MIN));
        let blocks = blocks.each_ref().map(Vec::as_slice);
        let bytes: Vec<u8> = vec![0; 4096];
        for level in Level::all() {
            for ahead in [[&[][..]; BLOCKS], [bytes.as_slice(); BLOCKS]] {
                let product = Product {
                    a: &a,
                    a_stride: depth,
                    factors: &factors,
                    blocks,
                    layout,
                    block_tokens,
                    rows,
                    depth,
                    columns,
                    keep: keep.then_some(&corrections),
                    ahead: &ahead,
                };
                let mut c = start.clone();
                multiply(level, product, &mut c, columns);
                assert_eq!(
                    c, want,
                    "{level:?} {rows} {depth} {columns} {block_tokens} keep: {keep}"
                );
            }
        }
    }

    /// `b` in blocks; what is not of `b` is `outside`.
    fn blocks<E: Copy>(
        b: &[Pair<E>],
        depth: usize,
        columns: usize,
        tokens: usize,
        layout: Layout,
        outside: E,
    ) -> [Vec<Pair<E>>; BLOCKS] {
        let (len, first) = match layout {
            Layout::Beside => (depth * tokens, 0),
            Layout::Stacked { first } => (tokens / 2 * columns, first),
        };
        let mut out: [Vec<Pair<E>>; BLOCKS] = std::array::from_fn(|_| vec![[outside; 2]; len]);
        for k in 0..depth {
            for j in 0..columns {
                let (block, at) = match layout {
                    Layout::Beside => (j / tokens, k * tokens + j % tokens),
                    Layout::Stacked { .. } => {
                        let (row, rows) = (first + k, tokens / 2);
                        (row / rows, row % rows * columns + j)
                    }
                };
                out[block][at] = b[k * columns + j];
            }
        }
        out
    }

    #[test]
    fn sums_that_nobody_reads_may_pass_all_bounds() {
        let a = [[i16::MIN; 2]; 32];
        let block = [[i16::MIN; 2]; 32 * 16];
        for level in Level::all() {
            let product = Product {
                a: &a,
                a_stride: 32,
                factors: &[1.0],
                blocks: [&block, &[], &[], &[]],
                layout: Layout::Beside,
                block_tokens: 16,
                rows: 1,
                depth: 32,
                columns: 16,
                keep: None,
                ahead: &[&[]; BLOCKS],
            };
            let mut c = [1.0; 16];
            multiply(level, product, &mut c, 16);
            assert_eq!(c, [0.0; 16], "{level:?}: 64 times 2³⁰ wraps to nothing");
        }
    }
}
