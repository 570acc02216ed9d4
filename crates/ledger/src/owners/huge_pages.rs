//! The slack of transparent huge pages: 4 KiB pieces that nobody ever wrote to.

use std::collections::BTreeMap;
use std::time::Instant;

use plumb_target::{PAGE, Range, ReadMemory};

use crate::claim::{Claim, Claims, divide};
use crate::classify::Kinds;
use crate::rows::Rows;
use crate::sample::{Cost, Scene};

/// Huge pages of x86-64 and of 4 KiB arm64.
const HUGE: u64 = 2 << 20;
/// Huge pages that are looked into in one sample; of more, every nth is.
const READ_AT_MOST: usize = 128;
/// Of more than that, every nth piece is read.
const READ_WHOLE: usize = 32;
const SOME: usize = 4;

/// Moves the zero pieces of anonymous huge pages from their owners to the slack: read where they are
/// few, estimated from an even sample where they are many or time is short.
pub(crate) fn huge_page_slack(
    scene: &Scene,
    claims: &Claims,
    kinds: &Kinds,
    rows: &mut Rows<'_>,
    cost: &mut Cost,
) {
    let (Some(memory), Some(pagemap)) = (&scene.memory, &scene.reading.pagemap) else { return };
    let entries = &scene.reading.entries;
    let total: u64 = entries.iter().map(|entry| entry.usage.anon_huge / HUGE).sum();
    if !scene.depth.huge_pages || total == 0 {
        return;
    }
    let begun = Instant::now();
    let with_huge = entries.iter().enumerate().filter(|(_, entry)| entry.usage.anon_huge > 0);
    let pages: Vec<(usize, u64)> = with_huge
        .flat_map(|(index, entry)| {
            huge_pages(pagemap, &entry.map.range()).into_iter().map(move |huge| (index, huge))
        })
        .collect();
    let every = pages.len().div_ceil(READ_AT_MOST).max(1);
    let chosen: Vec<(usize, u64)> = pages.iter().step_by(every).copied().collect();
    let stride = if chosen.len() > READ_WHOLE { SOME } else { 1 };
    let (mut zeros, mut read) = (BTreeMap::<(usize, Option<u64>), u64>::new(), 0);
    let mut divided = BTreeMap::new();
    for (nth, at) in evenly(chosen.len()).enumerate() {
        if read > 0 && begun.elapsed() > scene.depth.budget {
            break;
        }
        read += 1;
        let (index, huge) = chosen[at];
        let pieces = divided.entry(index).or_insert_with(|| {
            divide(&entries[index], claims, |map| scene.reading.pages_of(map)).pieces
        });
        for page in zero_pieces(memory, huge, nth % stride, stride) {
            if let Some(piece) = pieces.iter().find(|piece| piece.range.contains(&page)) {
                *zeros.entry((index, piece.claim)).or_default() += 1;
            }
        }
    }
    for ((index, claim), zeros) in zeros {
        let claim = claim.and_then(|start| claims.at(start));
        let layer = claim.map_or(kinds.layer(&entries[index].map), |claim| claim.layer);
        let bytes = zeros * PAGE * (pages.len() * stride) as u64 / read;
        rows.move_to_slack(layer, claim.map(Claim::group), index, bytes);
    }
    cost.huge_pages_s = begun.elapsed().as_secs_f64();
}

/// All numbers below `n`, in an order of which every beginning is spread evenly.
fn evenly(n: usize) -> impl Iterator<Item = usize> {
    let bits = n.next_power_of_two().trailing_zeros();
    let reversed = (0..1usize << bits).map(move |k| match bits {
        0 => 0,
        _ => k.reverse_bits() >> (usize::BITS - bits),
    });
    reversed.filter(move |&k| k < n)
}

/// The first addresses of the huge pages of a range.
fn huge_pages(pagemap: &plumb_target::Pagemap, range: &Range) -> Vec<u64> {
    let known = pagemap.knows_huge();
    let runs = pagemap.resident(range);
    runs.into_iter()
        .filter(|run| run.huge || !known)
        .flat_map(|run| {
            let first = run.range.start.next_multiple_of(HUGE);
            (first..run.range.end).step_by(HUGE as usize).filter(move |h| h + HUGE <= run.range.end)
        })
        .collect()
}

/// The zero pieces of a huge page, of those looked at: every `stride`th from `first` on.
fn zero_pieces(memory: &impl ReadMemory, huge: u64, first: usize, stride: usize) -> Vec<u64> {
    let pieces = HUGE / PAGE;
    let addresses: Vec<u64> =
        (first as u64..pieces).step_by(stride).map(|piece| huge + piece * PAGE).collect();
    let mut bytes = vec![1; addresses.len() * PAGE as usize];
    match stride {
        1 => {
            memory.read_at(huge, &mut bytes);
        }
        _ => memory.read_scattered(&addresses, PAGE as usize, &mut bytes),
    }
    let pieces = addresses.into_iter().zip(bytes.chunks_exact(PAGE as usize));
    pieces.filter(|(_, piece)| piece.iter().all(|&b| b == 0)).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn every_beginning_is_spread_evenly() {
        for n in [1, 2, 7, 128, 100] {
            let order: Vec<usize> = evenly(n).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            let half = &order[..n.div_ceil(2)];
            let late = half.iter().filter(|&&at| at >= n / 2).count();
            assert!(late.abs_diff(half.len() - late) <= n / 8 + 1, "{order:?}");
        }
    }
}
