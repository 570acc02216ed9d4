//! Owners claim ranges; mappings are divided among them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use plumb_target::smaps::Entry;
use plumb_target::{Map, Range, Residency};

use crate::Layer;

/// A range that one owner holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its addresses.
    pub range: Range,
    /// The layer of its resident bytes that are not carved out.
    pub layer: Layer,
    /// What a person calls it.
    pub name: String,
    /// Resident bytes of it that belong to another layer, such as live chunks.
    pub carved: Option<(Layer, u64)>,
    /// The first address as it was claimed: pieces of one claim keep it.
    group: u64,
}

impl Claim {
    /// A claim of a range for a layer.
    pub fn new(range: Range, layer: Layer, name: impl Into<String>) -> Self {
        Self { group: range.start, range, layer, name: name.into(), carved: None }
    }

    /// Says that so many of its resident bytes are another layer's.
    pub fn carving(self, layer: Layer, bytes: u64) -> Self {
        Self { carved: Some((layer, bytes)), ..self }
    }

    /// The same for all pieces of a claim that was divided by earlier ones.
    pub fn group(&self) -> u64 {
        self.group
    }
}

/// Claims that do not overlap: the first to come keeps its bytes.
#[derive(Debug, Default)]
pub struct Claims {
    by_start: BTreeMap<u64, Claim>,
}

impl Claims {
    /// Takes a claim, or what earlier ones left of it.
    pub fn add(&mut self, claim: Claim) {
        for range in self.free_in(&claim.range) {
            self.by_start.insert(range.start, Claim { range, ..claim.clone() });
        }
    }

    /// The parts of `range` that nobody has claimed.
    pub fn free_in(&self, range: &Range) -> Vec<Range> {
        let mut free = Vec::new();
        let mut at = range.start;
        for taken in self.within(range) {
            if taken.range.start > at {
                free.push(at..taken.range.start);
            }
            at = at.max(taken.range.end);
        }
        if at < range.end {
            free.push(at..range.end);
        }
        free
    }

    /// The claims that overlap `range`, in order.
    pub fn within(&self, range: &Range) -> impl Iterator<Item = &Claim> {
        let before = self.by_start.range(..range.start).next_back();
        let before = before.map(|(_, claim)| claim).filter(|claim| claim.range.end > range.start);
        let end = range.end.max(range.start);
        before.into_iter().chain(self.by_start.range(range.start..end).map(|(_, claim)| claim))
    }

    /// The claim that starts at `start`.
    pub fn at(&self, start: u64) -> Option<&Claim> {
        self.by_start.get(&start)
    }

    /// All claims, in order.
    pub fn all(&self) -> impl Iterator<Item = &Claim> {
        self.by_start.values()
    }
}

/// A piece of a mapping with one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its addresses.
    pub range: Range,
    /// The claim's first address, or `None` where nobody claims it.
    pub claim: Option<u64>,
    /// Its resident bytes.
    pub resident: u64,
}

/// A mapping, divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divided {
    /// Its pieces in order; their bytes add up to the mapping's.
    pub pieces: Vec<Piece>,
    /// By how many bytes the pages differed from what was said of the whole: the target changed it
    /// in between.
    pub drift: u64,
}

/// Divides a mapping among its claims. `pages` is asked only where a mapping has more than one owner.
pub fn divide<'a>(
    entry: &Entry,
    claims: &Claims,
    pages: impl FnOnce(&Map) -> Cow<'a, Residency>,
) -> Divided {
    let whole = entry.map.range();
    let mut pieces = Vec::new();
    let mut at = whole.start;
    for claim in claims.within(&whole) {
        let (start, end) = (claim.range.start.max(whole.start), claim.range.end.min(whole.end));
        if start > at {
            pieces.push(Piece { range: at..start, claim: None, resident: 0 });
        }
        pieces.push(Piece { range: start..end, claim: Some(claim.range.start), resident: 0 });
        at = end;
    }
    if at < whole.end {
        pieces.push(Piece { range: at..whole.end, claim: None, resident: 0 });
    }
    let mut drift = 0;
    if let [only] = pieces.as_mut_slice() {
        only.resident = entry.usage.rss;
    } else if entry.usage.rss > 0 {
        let resident = pages(&entry.map);
        for piece in &mut pieces {
            piece.resident = resident.bytes_in(&piece.range);
        }
        drift = settle(&mut pieces, entry.usage.rss);
    }
    Divided { pieces, drift }
}

/// Makes pieces add up to the whole: what came or went meanwhile did so in the largest ones, as far
/// as anybody can tell. Returns how much that was.
fn settle(pieces: &mut [Piece], whole: u64) -> u64 {
    let sum: u64 = pieces.iter().map(|piece| piece.resident).sum();
    let mut by_size: Vec<&mut Piece> = pieces.iter_mut().collect();
    by_size.sort_by_key(|piece| {
        std::cmp::Reverse((piece.resident, piece.range.end - piece.range.start))
    });
    if let Some(largest) = by_size.first_mut() {
        largest.resident += whole.saturating_sub(sum);
    }
    let mut surplus = sum.saturating_sub(whole);
    for piece in by_size {
        let less = surplus.min(piece.resident);
        piece.resident -= less;
        surplus -= less;
    }
    sum.abs_diff(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_target::smaps;

    fn claim(range: Range, layer: Layer) -> Claim {
        Claim::new(range, layer, "")
    }

    #[test]
    fn the_first_claim_keeps_its_bytes() {
        let mut claims = Claims::default();
        claims.add(claim(20..30, Layer::Stacks));
        claims.add(claim(10..50, Layer::HeapRetained));
        claims.add(claim(0..100, Layer::Code));
        let all: Vec<_> = claims.all().map(|c| (c.range.clone(), c.layer)).collect();
        assert_eq!(
            all,
            [
                (0..10, Layer::Code),
                (10..20, Layer::HeapRetained),
                (20..30, Layer::Stacks),
                (30..50, Layer::HeapRetained),
                (50..100, Layer::Code),
            ]
        );
    }

    #[test]
    fn a_mapping_is_divided_by_what_is_resident() {
        let text = b"10000-20000 rw-p 0 00:00 0 \nRss: 32 kB\n";
        let entry = &smaps::parse(text).unwrap()[0];
        let mut claims = Claims::default();
        let pages = Residency::of([0x10000..0x16000, 0x1e000..0x20000]);
        let whole = divide(entry, &claims, |_| unreachable!("it has one owner"));
        let one = Piece { range: 0x10000..0x20000, claim: None, resident: 32 << 10 };
        assert_eq!(whole, Divided { pieces: vec![one], drift: 0 });
        claims.add(claim(0xf000..0x12000, Layer::Stacks));
        claims.add(claim(0x1f000..0x20000, Layer::Python));
        let divided = divide(entry, &claims, |_| Cow::Borrowed(&pages));
        let bytes: Vec<_> = divided.pieces.iter().map(|p| (p.claim, p.resident)).collect();
        assert_eq!(bytes, [(Some(0xf000), 0x2000), (None, 0x5000), (Some(0x1f000), 0x1000)]);
        assert_eq!(divided.drift, 0);
    }

    #[test]
    fn pieces_add_up_to_a_whole_that_moved() {
        let mut claims = Claims::default();
        claims.add(claim(0x10000..0x12000, Layer::Stacks));
        let pages = Residency::of([0x10000..0x12000, 0x13000..0x17000]);
        for (rss, stack, rest) in
            [(24, 8, 16), (36, 8, 28), (12, 8, 4), (4, 4, 0), (64, 8, 56), (0, 0, 0)]
        {
            let text = format!("10000-20000 rw-p 0 00:00 0 \nRss: {rss} kB\n");
            let entry = &smaps::parse(text.as_bytes()).unwrap()[0];
            let divided = divide(entry, &claims, |_| Cow::Borrowed(&pages));
            let kib: Vec<_> = divided.pieces.iter().map(|p| p.resident >> 10).collect();
            assert_eq!(kib, [stack, rest], "{rss} KiB");
            let moved = if rss == 0 { 0 } else { 24u64.abs_diff(rss) };
            assert_eq!(divided.drift >> 10, moved, "{rss} KiB");
        }
    }
}
