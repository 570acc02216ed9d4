//! Where buffers lie in the arena.

/// Every buffer begins on a cache line.
const ALIGN: usize = 64;

/// A buffer, from the operation that first writes it to the last that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    /// Index of the operation that writes it first.
    pub(crate) first: usize,
    /// Index of the last operation that reads it.
    pub(crate) last: usize,
    pub(crate) offset: usize,
}

impl Buffer {
    fn end(&self) -> usize {
        (self.offset + self.bytes).next_multiple_of(ALIGN)
    }

    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Gives each buffer the lowest offset at which it shares no byte with one that lives at the same
/// time, the largest first. Returns the bytes of the arena.
pub(crate) fn place(buffers: &mut [Buffer]) -> usize {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), buffers[i].first));
    let mut placed: Vec<usize> = Vec::new();
    for i in order {
        let mut taken: Vec<_> = placed
            .iter()
            .map(|&j| &buffers[j])
            .filter(|other| other.meets(&buffers[i]))
            .map(|other| (other.offset, other.end()))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + buffers[i].bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        buffers[i].offset = offset;
        placed.push(i);
    }
    buffers.iter().map(Buffer::end).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: usize, first: usize, last: usize) -> Buffer {
        Buffer { name: "", bytes, first, last, offset: 0 }
    }

    #[test]
    fn only_buffers_of_different_times_share_bytes() {
        let mut buffers: Vec<_> =
            (0..40).map(|i| buffer(64 + i * 97 % 1000, i, i + i * 7 % 5)).collect();
        let all: usize = buffers.iter().map(|b| b.bytes.next_multiple_of(ALIGN)).sum();
        let arena = place(&mut buffers);
        assert!(arena < all / 3, "{arena} of {all}");
        for (i, a) in buffers.iter().enumerate() {
            assert_eq!(a.offset % ALIGN, 0);
            for b in &buffers[..i] {
                let apart = a.end() <= b.offset || b.end() <= a.offset;
                assert!(apart || !a.meets(b), "{a:?} and {b:?}");
            }
        }
    }
}
