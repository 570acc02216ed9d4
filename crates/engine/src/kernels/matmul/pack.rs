//! Puts a GGUF matrix into the packed order (see `format`), once, at load.

use super::format::{BLOCK, Format, GROUP, STRIP, Scales, by_format};
use super::packed::{PackError, Shape};
use super::source::Parts;
use plumb_gguf::BlockType;

/// Repacks `src`, the bytes of a GGUF tensor of this shape, into `dst`.
///
/// Rows that the last strip has beyond the matrix are zero.
///
/// # Errors
/// If `src` or `dst` is not exactly as long as the shape says.
pub fn pack(shape: Shape, src: &[u8], dst: &mut [u8]) -> Result<(), PackError> {
    let Shape { ty, cols, .. } = shape;
    shape.check_source(src)?;
    shape.check_packed(dst)?;
    dst.fill(0);
    if shape.is_empty() {
        return Ok(());
    }
    let row_bytes = src.len() / shape.rows;
    let strips = dst.chunks_exact_mut(shape.strip_bytes());
    for (strip, rows) in strips.zip(src.chunks(row_bytes * STRIP)) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            by_format!(
                ty,
                F => place::<F>(ty, row, lane, strip),
                _ => place_floats(row, row_bytes / cols, lane, strip)
            );
        }
    }
    Ok(())
}

/// Floats lie column by column, 16 rows together.
fn place_floats(row: &[u8], size: usize, lane: usize, strip: &mut [u8]) {
    for (element, column) in row.chunks_exact(size).zip(strip.chunks_exact_mut(size * STRIP)) {
        column[lane * size..][..size].copy_from_slice(element);
    }
}

fn place<F: Format>(ty: BlockType, row: &[u8], lane: usize, strip: &mut [u8]) {
    let mut parts = Parts::new();
    for (block, chunk) in row.chunks_exact(ty.block_bytes()).zip(strip.chunks_exact_mut(F::CHUNK)) {
        parts.read(ty, block);
        chunk[2 * lane..][..2].copy_from_slice(&parts.d.to_le_bytes());
        if F::HAS_MIN {
            chunk[2 * (STRIP + lane)..][..2].copy_from_slice(&parts.m.to_le_bytes());
        }
        let blocks = chunk[F::HEAD..].chunks_exact_mut(F::BLOCK_BYTES);
        for (i, (block, codes)) in blocks.zip(parts.codes.chunks_exact(BLOCK)).enumerate() {
            match F::SCALES {
                Scales::Plain | Scales::Affine => {}
                Scales::Nested => {
                    block[lane] = parts.scales[i];
                    block[STRIP + lane] = parts.mins[i];
                }
                Scales::Nested16 => {
                    block[lane] = parts.scales[2 * i];
                    block[STRIP + lane] = parts.scales[2 * i + 1];
                }
            }
            place_codes::<F>(codes, lane, &mut block[F::SMALL..]);
        }
    }
}

/// Adds a row's 32 codes to a block that is zero where they go.
fn place_codes<F: Format>(codes: &[u8], lane: usize, block: &mut [u8]) {
    for (k, &code) in codes.iter().enumerate() {
        let (group, byte) = (k / 4, lane * 4 + k % 4);
        if F::BITS == 8 {
            block[group * GROUP + byte] = code;
            continue;
        }
        block[group / 2 * GROUP + byte] |= (code & 15) << (4 * (group % 2));
        let high = &mut block[4 * GROUP..];
        match F::BITS {
            5 => high[byte] |= code >> 4 << group,
            6 => high[group / 4 * GROUP + byte] |= code >> 4 << (2 * (group % 4)),
            _ => {}
        }
    }
}
