//! Adds up the pieces of mappings into one row a layer.

use std::collections::HashMap;

use plumb_target::smaps::Entry;

use crate::Layer;
use crate::claim::{Claims, Divided};
use crate::classify::describe;
use crate::sample::{LayerRow, Mapping};

/// How many of a layer's parts are named.
const BIGGEST: usize = 5;

#[derive(Default)]
struct Sum {
    resident: u64,
    vmas: usize,
    last_vma: Option<usize>,
    parts: HashMap<Key, (u64, usize)>,
}

/// Mappings of one file are one part; everything else is a part by itself.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Key {
    File((u32, u32), u64),
    /// Pages of a file that were written to in private mappings.
    Copies((u32, u32), u64),
    /// Its group.
    Claim(u64),
    Vma(usize),
}

/// What is known of a claim.
struct Claimed {
    resident: u64,
    /// Resident bytes that were moved to the slack of huge pages.
    slack: u64,
    /// By how much its mappings changed while they were read.
    drift: u64,
    /// A mapping that it is in.
    vma: usize,
    /// The start of one of its pieces.
    piece: u64,
}

/// The rows while they grow.
pub(crate) struct Rows<'a> {
    entries: &'a [Entry],
    sums: [Sum; Layer::ALL.len()],
    /// Of every claim, all its pieces together: by group.
    claimed: HashMap<u64, Claimed>,
    clean: u64,
    dirty: u64,
}

impl<'a> Rows<'a> {
    pub fn new(entries: &'a [Entry]) -> Self {
        Self {
            entries,
            sums: std::array::from_fn(|_| Sum::default()),
            claimed: HashMap::new(),
            clean: 0,
            dirty: 0,
        }
    }

    /// Adds the pieces of mapping `index`, whose unclaimed bytes are of layer `rest`.
    pub fn add(&mut self, index: usize, rest: Layer, divided: &Divided, claims: &Claims) {
        let entry = &self.entries[index];
        for piece in &divided.pieces {
            let claim = piece.claim.and_then(|start| claims.at(start));
            let layer = claim.map_or(rest, |claim| claim.layer);
            let key = match claim {
                Some(claim) => {
                    let piece_start = claim.range.start;
                    let known = self.claimed.entry(claim.group()).or_insert_with(|| Claimed {
                        resident: 0,
                        slack: 0,
                        drift: 0,
                        vma: index,
                        piece: piece_start,
                    });
                    known.resident += piece.resident;
                    known.drift += divided.drift;
                    Key::Claim(claim.group())
                }
                None if entry.map.has_file() => Key::File(entry.map.device, entry.map.inode),
                None => Key::Vma(index),
            };
            let copied = if claim.is_none() { copied(entry, layer, piece.resident) } else { 0 };
            self.put(layer, key, index, piece.resident - copied);
            if copied > 0 {
                let key = Key::Copies(entry.map.device, entry.map.inode);
                self.put(Layer::Anonymous, key, index, copied);
            }
            if let Some((carved, _)) = claim.and_then(|claim| claim.carved) {
                self.put(carved, key, index, 0);
            }
            if layer == Layer::Files {
                let usage = &entry.usage;
                self.clean += usage.private_clean + usage.shared_clean;
                self.dirty += (usage.private_dirty + usage.shared_dirty).saturating_sub(copied);
            }
        }
    }

    fn put(&mut self, layer: Layer, key: Key, vma: usize, resident: u64) {
        let sum = &mut self.sums[layer.index()];
        sum.resident += resident;
        if sum.last_vma != Some(vma) {
            sum.vmas += 1;
            sum.last_vma = Some(vma);
        }
        sum.parts.entry(key).or_insert((0, vma)).0 += resident;
    }

    /// Moves bytes of the owner of mapping `vma` (or of the claim) to the slack of huge pages.
    pub fn move_to_slack(&mut self, layer: Layer, group: Option<u64>, vma: usize, bytes: u64) {
        let key = group.map_or(Key::Vma(vma), Key::Claim);
        let from = &mut self.sums[layer.index()];
        let part = from.parts.entry(key).or_insert((0, vma));
        let bytes = bytes.min(part.0).min(from.resident);
        part.0 -= bytes;
        from.resident -= bytes;
        if let Some(known) = group.and_then(|group| self.claimed.get_mut(&group)) {
            known.resident = known.resident.saturating_sub(bytes);
            known.slack += bytes;
        }
        self.put(Layer::HugePageSlack, key, vma, bytes);
    }

    /// Carves what claims carve, and makes the rows.
    pub fn finish(mut self, claims: &Claims) -> Vec<LayerRow> {
        for (group, known) in std::mem::take(&mut self.claimed) {
            let Some(claim) = claims.at(known.piece) else { continue };
            if let Some((to, bytes)) = claim.carved {
                let key = Key::Claim(group);
                let from = &mut self.sums[claim.layer.index()];
                let inside = bytes.min(known.resident);
                from.resident -= inside.min(from.resident);
                if let Some(part) = from.parts.get_mut(&key) {
                    part.0 -= inside.min(part.0);
                }
                // More than is resident is a wrong claim, which the residual must show.
                let excess = (bytes - inside).saturating_sub(known.slack + known.drift);
                self.put(to, key, known.vma, inside + excess);
            }
            self.claimed.insert(group, known);
        }
        Layer::ALL
            .iter()
            .filter(|l| self.shows(**l))
            .map(|&layer| self.row(layer, claims))
            .collect()
    }

    /// All layers are shown. The layers that stand for an unsplit pair take its place where they
    /// have bytes, or stand beside it where both have.
    fn shows(&self, layer: Layer) -> bool {
        let empty = |layer: Layer| self.sums[layer.index()].vmas == 0;
        let unsplit = |whole: Layer, a: Layer, b: Layer| !empty(whole) && empty(a) && empty(b);
        match layer {
            Layer::Heap | Layer::Python => !empty(layer),
            Layer::HeapInUse | Layer::HeapRetained => {
                !unsplit(Layer::Heap, Layer::HeapInUse, Layer::HeapRetained)
            }
            Layer::PythonInUse | Layer::PythonFree => {
                !unsplit(Layer::Python, Layer::PythonInUse, Layer::PythonFree)
            }
            _ => true,
        }
    }

    fn row(&self, layer: Layer, claims: &Claims) -> LayerRow {
        let sum = &self.sums[layer.index()];
        let mut parts: Vec<(Key, u64, usize)> =
            sum.parts.iter().map(|(key, &(bytes, vma))| (*key, bytes, vma)).collect();
        parts.retain(|(_, bytes, _)| *bytes > 0);
        parts.sort_unstable_by_key(|&(_, bytes, vma)| (std::cmp::Reverse(bytes), vma));
        parts.truncate(BIGGEST);
        let files = layer == Layer::Files;
        LayerRow {
            layer,
            resident_bytes: sum.resident,
            vmas: sum.vmas,
            clean_bytes: files.then_some(self.clean),
            dirty_bytes: files.then_some(self.dirty),
            biggest: parts.into_iter().map(|part| self.mapping(part, claims)).collect(),
        }
    }

    fn mapping(&self, (key, bytes, vma): (Key, u64, usize), claims: &Claims) -> Mapping {
        let map = &self.entries[vma].map;
        let (name, start) = match key {
            Key::Claim(group) => {
                let piece = self.claimed.get(&group).map_or(group, |known| known.piece);
                (claims.at(piece).map_or_else(String::new, |c| c.name.clone()), piece)
            }
            Key::File(..) | Key::Vma(_) => (describe(map), map.start),
            Key::Copies(..) => (format!("{}, written to privately", describe(map)), map.start),
        };
        Mapping { name, start, resident_bytes: bytes }
    }
}

/// Of resident bytes of a file's mapping, those that are the process's own: what it wrote to in a
/// private mapping is the file's no more, and the kernel cannot drop it.
fn copied(entry: &Entry, layer: Layer, resident: u64) -> u64 {
    match layer {
        Layer::Files | Layer::Shared if !entry.map.permissions.shared => {
            entry.usage.anonymous.min(resident)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Claim, divide};
    use plumb_target::smaps;

    /// The sum of all layers where an owner says that so many bytes of 32 KiB resident are live.
    fn sum(live: u64, slack: u64) -> u64 {
        let entries = smaps::parse(b"10000-20000 rw-p 0 00:00 0 \nRss: 32 kB\n").unwrap();
        let mut claims = Claims::default();
        let claim = Claim::new(0x10000..0x20000, Layer::HeapRetained, "heap");
        claims.add(claim.carving(Layer::HeapInUse, live));
        let mut rows = Rows::new(&entries);
        let divided = divide(&entries[0], &claims, |_| unreachable!("it has one owner"));
        rows.add(0, Layer::Anonymous, &divided, &claims);
        rows.move_to_slack(Layer::HeapRetained, Some(0x10000), 0, slack);
        rows.finish(&claims).iter().map(|row| row.resident_bytes).sum()
    }

    /// Layers of 64 KiB of a file, 24 of them resident and 16 of these anonymous.
    fn of_a_file(permissions: &str) -> Vec<(Layer, u64)> {
        let smaps = format!(
            "10000-20000 {permissions} 0 fe:00 9 /models/a.bin\n\
             Rss: 24 kB\nPrivate_Clean: 8 kB\nPrivate_Dirty: 16 kB\nAnonymous: 16 kB\n"
        );
        let entries = smaps::parse(smaps.as_bytes()).unwrap();
        let claims = Claims::default();
        let mut rows = Rows::new(&entries);
        let divided = divide(&entries[0], &claims, |_| unreachable!("it has one owner"));
        rows.add(0, Layer::Files, &divided, &claims);
        let rows = rows.finish(&claims).into_iter().filter(|row| row.resident_bytes > 0);
        rows.map(|row| (row.layer, row.resident_bytes)).collect()
    }

    #[test]
    fn pages_of_a_file_that_were_written_to_privately_are_anonymous() {
        let split = [(Layer::Files, 8 << 10), (Layer::Anonymous, 16 << 10)];
        assert_eq!(of_a_file("rw-p"), split);
        assert_eq!(of_a_file("rw-s"), [(Layer::Files, 24 << 10)]);
    }

    #[test]
    fn a_claim_of_more_than_is_resident_shows_in_the_sum() {
        assert_eq!([sum(0, 0), sum(32 << 10, 0), sum(40 << 10, 0)], [32 << 10, 32 << 10, 40 << 10]);
        // A live chunk may lie on zero pieces of huge pages: they are the slack's.
        assert_eq!(sum(32 << 10, 8 << 10), 32 << 10);
    }
}
