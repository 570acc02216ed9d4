//! From byte strings to token ids, without a second copy of the strings.

/// An open-addressed table of ids. The strings themselves stay with the caller, who passes a way
/// to look at them: a vocabulary of 262,144 tokens costs 2 MiB here.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Index {
    /// A table for up to `count` ids, at most half full, so that a probe always meets a hole.
    pub fn with_capacity(count: usize) -> Self {
        Self { slots: vec![EMPTY; (count * 2).next_power_of_two().max(2)] }
    }

    /// Adds `id` under `key`, in place of an older id under the same key.
    pub fn insert<'a>(&mut self, key: &[u8], id: u32, text: impl Fn(u32) -> &'a [u8]) {
        let slot = self.slot(key, text);
        self.slots[slot] = id;
    }

    /// The id under `key`.
    pub fn get<'a>(&self, key: &[u8], text: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        Some(self.slots[self.slot(key, text)]).filter(|&id| id != EMPTY)
    }

    /// The slot that holds `key`, or the hole where it would be.
    fn slot<'a>(&self, key: &[u8], text: impl Fn(u32) -> &'a [u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(key) as usize & mask;
        while self.slots[slot] != EMPTY && text(self.slots[slot]) != key {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// Eight bytes a multiplication. Not against collisions by malice: the keys are the model's own.
fn hash(key: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut state = key.len() as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        state ^= state >> 29;
    }
    state
}
