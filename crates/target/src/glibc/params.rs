//! `mp_`: malloc's settings and its count of mapped chunks.

use super::window::Data;
use crate::{Map, maps};

/// What we use of `struct malloc_par`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// How many mapped chunks live.
    pub mapped_chunks: u64,
    /// Their bytes, whole pages.
    pub mapped_bytes: u64,
    /// Where `brk` stood when the main heap began; 0 where it never grew.
    pub sbrk_base: u64,
}

/// From `n_mmaps` (an int, followed by three more) to the words after them, and how far before it
/// the structure begins. 2.35 put three fields for huge pages before it.
struct Layout {
    before: usize,
    mapped_bytes: usize,
}

const LAYOUTS: [Layout; 2] =
    [Layout { before: 60, mapped_bytes: 20 }, Layout { before: 40, mapped_bytes: 16 }];
/// `TCACHE_MAX_BINS` and the largest chunk of the last small bin, as malloc.c computes them; in 2.43 one
/// byte more than what that chunk can hold.
const TCACHE: [[u64; 2]; 2] = [[64, 1032], [64, 1041]];

/// Finds `mp_` in a data segment by values that agree with each other; `None` where none or several
/// places would do.
pub(super) fn find(data: &Data, maps: &[Map]) -> Option<Params> {
    let bytes = data.words().len() * 8;
    let mut found = Vec::new();
    for layout in &LAYOUTS {
        let places = (layout.before..bytes).filter(|at| (at - layout.before).is_multiple_of(8));
        for at in places {
            if let Some((params, sure)) = params_at(data, layout, at, maps) {
                found.push((sure, params));
            }
        }
    }
    found.sort_by_key(|(sure, _)| std::cmp::Reverse(*sure));
    let best = found.first()?.0;
    let mut best_ones = found.into_iter().filter(|(sure, _)| *sure == best).map(|(_, p)| p);
    let first = best_ones.next()?;
    best_ones.all(|other| other == first).then_some(first)
}

/// The values at a place where `n_mmaps` might be, and how many things vouch for it.
fn params_at(data: &Data, layout: &Layout, at: usize, maps: &[Map]) -> Option<(Params, u32)> {
    let (count, most_allowed) = (data.half(at)?, data.half(at + 4)?);
    let (most, fixed) = (data.half(at + 8)?, data.half(at + 12)?);
    let mapped_at = at + layout.mapped_bytes;
    let (mapped, most_mapped) = (data.word(mapped_at)?, data.word(mapped_at + 8)?);
    let sbrk_base = data.word(mapped_at + 16)?;
    let start = at - layout.before;
    let (trim, threshold) = (data.word(start)?, data.word(start + 16)?);
    let sound = count <= most
        && fixed <= 1
        && (count == 0) == (mapped == 0)
        // Whole pages, but 2.43 adds and takes off a header more or less.
        && mapped.is_multiple_of(16)
        && most_mapped.is_multiple_of(16)
        && mapped <= most_mapped
        && mapped >= u64::from(count) * 4096
        && trim > 0
        && threshold > 0;
    // Where `brk` cannot grow, the first piece that was mapped instead counts as the base.
    let base_fits = sbrk_base.is_multiple_of(16)
        && maps::find(maps, sbrk_base)
            .is_some_and(|map| map.is_anonymous() && map.permissions.write);
    let tcache = [data.word(mapped_at + 24)?, data.word(mapped_at + 32)?];
    let tcache_fits = TCACHE.contains(&tcache);
    let sure = u32::from(base_fits) + u32::from(tcache_fits) + u32::from(most_allowed == 65_536);
    if !sound || !(base_fits || sbrk_base == 0) || sure < 2 {
        return None;
    }
    Some((Params { mapped_chunks: count.into(), mapped_bytes: mapped, sbrk_base }, sure))
}
