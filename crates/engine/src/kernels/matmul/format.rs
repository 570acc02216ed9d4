//! How packed weights lie in memory: the one description that packing and every kernel read.
//!
//! A matrix `[out, in]` is cut into **strips** of 16 output rows; a strip runs through all of `in`
//! before the next one begins, so that a matrix is read as one stream. Within a strip, a **chunk**
//! is a *head* (scales of 16 rows) followed by one or eight **blocks** of 32 columns:
//!
//! | types                | head        | blocks | before a block's codes |
//! |----------------------|-------------|--------|------------------------|
//! | `Q4_0` `Q5_0` `Q8_0` | `d`         | 1      |                        |
//! | `Q4_1` `Q5_1`        | `d`, `m`    | 1      |                        |
//! | `Q4_K` `Q5_K`        | `d`, `dmin` | 8      | 16 scales, 16 minimums |
//! | `Q6_K`               | `d`         | 8      | 16 + 16 scales         |
//!
//! (`d`, `m`, `dmin` are 16 halves; scales and minimums are bytes.) Codes are unsigned. Column `k` of
//! row `r` is byte `4 r + k % 4` of **group** `k / 4`: a vector of 64 bytes in which each 32-bit lane
//! is one output row, so that a dot product of bytes accumulates by lane and nothing is ever summed
//! across lanes. Low nibbles of groups `2i` and `2i + 1` share 64 bytes; fifth and sixth bits follow
//! them, one vector for eight and for four groups. Sizes equal GGUF's, but for `Q4_K` and `Q5_K`
//! (+ 3 %: their scales are unpacked from six bits to bytes).

use plumb_gguf::BlockType;

/// Output rows in a strip.
pub const STRIP: usize = 16;
/// Columns in a block.
pub const BLOCK: usize = 32;
/// Bytes of a vector of codes: a strip's rows × 4 columns.
pub(crate) const GROUP: usize = STRIP * 4;

/// Which scales a type has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scales {
    /// `d · code`
    Plain,
    /// `d · code + m`
    Affine,
    /// `d · scale · code − dmin · min`, scale and minimum for 32 columns
    Nested,
    /// `d · scale · code`, a signed scale for 16 columns
    Nested16,
}

/// A block-quantised type: constants from which the kernels are made.
pub(crate) trait Format {
    /// Bits of a code.
    const BITS: usize;
    const SCALES: Scales;
    /// Codes are stored with `1 << OFFSET` added to make them unsigned; 0 where they are so anyway.
    const OFFSET: u32;

    const HEAD: usize = match Self::SCALES {
        Scales::Plain | Scales::Nested16 => 2 * STRIP,
        Scales::Affine | Scales::Nested => 4 * STRIP,
    };
    /// Blocks in a chunk.
    const BLOCKS: usize = match Self::SCALES {
        Scales::Plain | Scales::Affine => 1,
        Scales::Nested | Scales::Nested16 => 8,
    };
    /// Bytes before a block's codes.
    const SMALL: usize = match Self::SCALES {
        Scales::Plain | Scales::Affine => 0,
        Scales::Nested | Scales::Nested16 => 2 * STRIP,
    };
    const BLOCK_BYTES: usize = Self::SMALL + STRIP * BLOCK * Self::BITS / 8;
    const CHUNK: usize = Self::HEAD + Self::BLOCKS * Self::BLOCK_BYTES;
    /// Whether a block has a minimum to add.
    const HAS_MIN: bool = matches!(Self::SCALES, Scales::Affine | Scales::Nested);
    /// Scales in a block: each covers `8 / STEPS` groups.
    const STEPS: usize = if matches!(Self::SCALES, Scales::Nested16) { 2 } else { 1 };
}

macro_rules! formats {
    ($($name:ident: $bits:literal, $scales:ident, $offset:literal;)*) => {$(
        #[allow(non_camel_case_types, reason = "ggml's own names")]
        pub(crate) struct $name;
        impl Format for $name {
            const BITS: usize = $bits;
            const SCALES: Scales = Scales::$scales;
            const OFFSET: u32 = $offset;
        }
    )*};
}
formats! {
    Q8_0: 8, Plain, 7;
    Q4_0: 4, Plain, 3;
    Q4_1: 4, Affine, 0;
    Q5_0: 5, Plain, 4;
    Q5_1: 5, Affine, 0;
    Q4_K: 4, Nested, 0;
    Q5_K: 5, Nested, 0;
    Q6_K: 6, Nested16, 5;
}

/// `by_format!(ty, F => a, _ => b)`: `a` with `F` the format of the block-quantised type `ty`, and `b`
/// for floats.
macro_rules! by_format {
    ($ty:expr, $format:ident => $blocks:expr, _ => $floats:expr) => {
        by_format!(@ $ty, $format, $blocks, $floats; Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K)
    };
    (@ $ty:expr, $format:ident, $blocks:expr, $floats:expr; $($name:ident)*) => {
        match $ty {
            ::plumb_gguf::BlockType::F32
            | ::plumb_gguf::BlockType::F16
            | ::plumb_gguf::BlockType::BF16 => $floats,
            $(::plumb_gguf::BlockType::$name => {
                type $format = $crate::kernels::matmul::format::$name;
                $blocks
            })*
        }
    };
}
pub(super) use by_format;

/// Bytes of one strip of `cols` columns; `None` if they do not fill whole blocks, or on overflow.
pub(crate) fn strip_bytes(ty: BlockType, cols: usize) -> Option<usize> {
    let (width, chunk) = by_format!(ty, F => (F::BLOCKS * BLOCK, F::CHUNK), _ => {
        (1, if ty == BlockType::F32 { 4 * STRIP } else { 2 * STRIP })
    });
    if !cols.is_multiple_of(width) {
        return None;
    }
    (cols / width).checked_mul(chunk)
}

/// Whether rows of this type are floats, multiplied by unquantised activations.
pub(crate) fn is_float(ty: BlockType) -> bool {
    matches!(ty, BlockType::F32 | BlockType::F16 | BlockType::BF16)
}
