//! Which bytes of which blocks a pull moves, in which order: both sides compute it.

use std::ops::Range;

use super::frame::MAX_DATA;
use crate::{BlockShape, PoolView};

/// Pieces of a data frame: a bound on the vectors of one system call.
const MAX_PIECES: usize = 256;

/// A run of bytes within the `block`-th block of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) block: usize,
    pub(super) bytes: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) spans: Vec<Span>,
    pub(super) bytes: u64,
    /// Blocks of which some layers are left out, by place in the pull.
    pub(super) partial: Vec<usize>,
}

impl Plan {
    /// Blocks `first..first + count` of a sequence, for a reader that computes from the token after
    /// them on.
    ///
    /// A layer with a window leaves out the blocks that no query will read: the earliest query is at
    /// position `end`, and reads keys from `end + 1 - window` on.
    pub(super) fn new(shape: &BlockShape, view: &PoolView<'_>, first: usize, count: usize) -> Self {
        let end = (first + count) * shape.tokens;
        let layer_ends = (1..shape.layers.len())
            .map(|layer| view.layer_offset(layer))
            .chain(std::iter::once(view.block_bytes));
        let layers: Vec<(Range<usize>, Option<u32>)> = shape
            .layers
            .iter()
            .zip(layer_ends)
            .enumerate()
            .map(|(l, (layer, layer_end))| (view.layer_offset(l)..layer_end, layer.window))
            .collect();

        let mut plan = Self { spans: Vec::with_capacity(count), bytes: 0, partial: Vec::new() };
        for block in 0..count {
            let block_end = (first + block + 1) * shape.tokens;
            let mut left_out = false;
            for (bytes, window) in &layers {
                if window.is_some_and(|window| block_end + window as usize <= end + 1) {
                    left_out = true;
                } else {
                    plan.push(block, bytes.clone());
                }
            }
            if left_out {
                plan.partial.push(block);
            }
        }
        plan
    }

    fn push(&mut self, block: usize, bytes: Range<usize>) {
        self.bytes += bytes.len() as u64;
        match self.spans.last_mut() {
            Some(last) if last.block == block && last.bytes.end == bytes.start => {
                last.bytes.end = bytes.end;
            }
            _ => self.spans.push(Span { block, bytes }),
        }
    }

    /// The plan cut into data frames of at most [`MAX_DATA`] bytes and [`MAX_PIECES`] pieces.
    pub(super) fn frames(&self) -> Frames<'_> {
        Frames { spans: &self.spans, skip: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Frames<'a> {
    spans: &'a [Span],
    /// Bytes of the first span that went into the frame before.
    skip: usize,
}

impl Iterator for Frames<'_> {
    type Item = Vec<Span>;

    fn next(&mut self) -> Option<Vec<Span>> {
        let mut pieces = Vec::new();
        let mut room = MAX_DATA;
        while let Some((span, later)) = self.spans.split_first() {
            if room == 0 || pieces.len() == MAX_PIECES {
                break;
            }
            let start = span.bytes.start + self.skip;
            let end = span.bytes.end.min(start + room);
            room -= end - start;
            pieces.push(Span { block: span.block, bytes: start..end });
            if end < span.bytes.end {
                self.skip = end - span.bytes.start;
            } else {
                self.skip = 0;
                self.spans = later;
            }
        }
        (!pieces.is_empty()).then_some(pieces)
    }
}

pub(super) fn frame_bytes(pieces: &[Span]) -> usize {
    pieces.iter().map(|piece| piece.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerShape, Pool};

    fn plan(layers: &[(usize, Option<u32>)], tokens: usize, first: usize, count: usize) -> Plan {
        let layers = layers.iter().map(|&(bytes, window)| LayerShape { bytes, window }).collect();
        let shape = BlockShape { layers, tokens };
        let pool = Pool::new("kv-test-plan", shape.clone(), 1).unwrap();
        Plan::new(&shape, &pool.view(), first, count)
    }

    #[test]
    fn whole_blocks_are_one_span_each() {
        let plan = plan(&[(100, None), (100, None)], 16, 3, 2);
        let spans = [Span { block: 0, bytes: 0..256 }, Span { block: 1, bytes: 0..256 }];
        assert_eq!(plan.spans, spans);
        assert_eq!((plan.bytes, plan.partial.len()), (512, 0));
    }

    #[test]
    fn a_window_sends_exactly_the_blocks_that_a_query_reads() {
        let (tokens, blocks) = (4, 10);
        for window in 1..60u32 {
            let plan = plan(&[(64, Some(window)), (64, None)], tokens, 0, blocks);
            let query = blocks * tokens;
            let earliest = (query + 1).saturating_sub(window as usize);
            for block in 0..blocks {
                let read = (block + 1) * tokens > earliest;
                assert_eq!(!plan.partial.contains(&block), read, "window {window} block {block}");
            }
        }
    }

    #[test]
    fn frames_hold_every_byte_once_in_order_and_are_bounded() {
        for bytes in [64, 3000, 700_000, 3 << 20] {
            let plan = plan(&[(bytes, Some(20)), (bytes, None), (64, Some(9))], 16, 0, 300);
            let mut sent = Vec::new();
            for pieces in plan.frames() {
                assert!(frame_bytes(&pieces) <= MAX_DATA && pieces.len() <= MAX_PIECES);
                sent.extend(pieces);
            }
            assert_eq!(frame_bytes(&sent) as u64, plan.bytes);
            let mut joined: Vec<Span> = Vec::new();
            for piece in sent {
                match joined.last_mut() {
                    Some(l) if l.block == piece.block && l.bytes.end == piece.bytes.start => {
                        l.bytes.end = piece.bytes.end;
                    }
                    _ => joined.push(piece),
                }
            }
            assert_eq!(joined, plan.spans);
        }
    }
}
