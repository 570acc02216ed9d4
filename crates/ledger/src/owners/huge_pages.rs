//! The slack of transparent huge pages: 4 KiB pieces that nobody ever wrote to.

use std::time::Instant;

use plumb_target::{PAGE, Range, ReadMemory};

use crate::claim::{Claim, Claims, divide};
use crate::classify::Kinds;
use crate::rows::Rows;
use crate::sample::{Cost, Scene};

/// Huge pages of x86-64 and of 4 KiB arm64.
const HUGE: u64 = 2 << 20;
/// Huge pages that are read whole in one sample; of more, every nth is.
const READ_AT_MOST: u64 = 128;

/// Moves the zero pieces of anonymous huge pages from their owners to the slack: read where they are
/// few, estimated from an even sample where they are many.
pub(crate) fn huge_page_slack(
    scene: &Scene,
    claims: &Claims,
    kinds: &Kinds,
    rows: &mut Rows<'_>,
    cost: &mut Cost,
) {
    let (Some(memory), Some(pagemap)) = (&scene.memory, &scene.reading.pagemap) else { return };
    let total: u64 = scene.reading.entries.iter().map(|entry| entry.usage.anon_huge / HUGE).sum();
    if !scene.depth.huge_pages || total == 0 {
        return;
    }
    let begun = Instant::now();
    let every = total.div_ceil(READ_AT_MOST);
    let mut met = 0u64;
    for (index, entry) in scene.reading.entries.iter().enumerate() {
        if entry.usage.anon_huge == 0 {
            continue;
        }
        let pieces = divide(entry, claims, |map| scene.reading.pages_of(map)).pieces;
        let rest = kinds.layer(&entry.map);
        for huge in huge_pages(pagemap, &entry.map.range()) {
            met += 1;
            if !met.is_multiple_of(every) || begun.elapsed() > scene.depth.budget {
                continue;
            }
            let zero = zero_pieces(memory, huge);
            for piece in &pieces {
                let zeros = zero.iter().filter(|page| piece.range.contains(page)).count() as u64;
                if zeros > 0 {
                    let claim = piece.claim.and_then(|start| claims.at(start));
                    let layer = claim.map_or(rest, |claim| claim.layer);
                    let group = claim.map(Claim::group);
                    rows.move_to_slack(layer, group, index, zeros * PAGE * every);
                }
            }
        }
    }
    cost.huge_pages_s = begun.elapsed().as_secs_f64();
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

fn zero_pieces(memory: &impl ReadMemory, huge: u64) -> Vec<u64> {
    let mut bytes = vec![1; HUGE as usize];
    let got = memory.read_at(huge, &mut bytes);
    let pieces = bytes[..got].chunks_exact(PAGE as usize).enumerate();
    pieces
        .filter(|(_, piece)| piece.iter().all(|&b| b == 0))
        .map(|(index, _)| huge + index as u64 * PAGE)
        .collect()
}
