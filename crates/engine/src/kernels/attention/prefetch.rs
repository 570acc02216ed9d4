//! Telling the machine what will be read soon: a sequence's blocks are too short for it to see them
//! coming, and what is asked for all at once is waited for.

use super::product::BLOCKS;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Blocks that are asked for line by line, a few with each step of a product.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    blocks: [*const u8; BLOCKS],
    /// Lines of a block.
    lines: usize,
    /// Lines of one block with each step.
    pace: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self { blocks: [std::ptr::null(); BLOCKS], lines: 0, pace: 0 };

    /// Spreads the lines of the blocks, all of one length, over so many steps.
    #[inline(always)]
    pub(super) fn new(blocks: &[&[u8]; BLOCKS], steps: usize) -> Self {
        let lines = blocks[0].len().div_ceil(LINE);
        let pace = (lines * BLOCKS).div_ceil(steps.max(1));
        let null = |block: &&[u8]| if block.is_empty() { std::ptr::null() } else { block.as_ptr() };
        Self { blocks: blocks.each_ref().map(null), lines, pace }
    }

    /// With step `step`, asks for some lines of one of the blocks.
    #[inline(always)]
    pub(super) fn ask(&self, step: usize) {
        let line = step / BLOCKS * self.pace;
        if line >= self.lines {
            return;
        }
        let block = self.blocks[step % BLOCKS];
        if block.is_null() {
            return;
        }
        (line..line + self.pace).for_each(|line| touch(block.wrapping_add(line * LINE)));
    }
}

/// Asks for all lines of some blocks.
pub(super) fn ask(blocks: &[&[u8]; BLOCKS]) {
    blocks.iter().flat_map(|block| block.iter().step_by(LINE)).for_each(|line| touch(line));
}

/// Asks for one line, where the architecture has a way to. Into the second-level cache: of what the first
/// waits for there are few at a time, and each holds up the loads of the products.
#[inline(always)]
pub(super) fn touch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint; it reads nothing that the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
