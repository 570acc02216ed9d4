//! Block-quantised weights, one row of activations at a time.

use super::super::format::{BLOCK, Format, GROUP, STRIP, Scales};
use super::super::job::BlockJob;
use half::f16;
use std::marker::PhantomData;

/// 32 columns of a strip.
pub(super) struct Block<'a, F> {
    head: &'a [u8],
    small: &'a [u8],
    codes: &'a [u8],
    format: PhantomData<F>,
}

impl<'a, F: Format> Block<'a, F> {
    pub fn new(chunk: &'a [u8], index: usize) -> Self {
        let (head, blocks) = chunk.split_at(F::HEAD);
        let (small, codes) = blocks[index * F::BLOCK_BYTES..][..F::BLOCK_BYTES].split_at(F::SMALL);
        Self { head, small, codes, format: PhantomData }
    }

    fn half(&self, at: usize) -> f32 {
        f16::from_le_bytes([self.head[2 * at], self.head[2 * at + 1]]).to_f32()
    }

    /// The scale of a row's codes; `step` is 1 for the upper half of a block that has two scales.
    pub fn scale(&self, lane: usize, step: usize) -> f32 {
        let d = self.half(lane);
        match F::SCALES {
            Scales::Plain | Scales::Affine => d,
            Scales::Nested => d * f32::from(self.small[lane]),
            Scales::Nested16 => d * f32::from(self.small[step * STRIP + lane].cast_signed()),
        }
    }

    /// What every element of a row has added.
    pub fn min(&self, lane: usize) -> f32 {
        match F::SCALES {
            Scales::Plain | Scales::Nested16 => 0.0,
            Scales::Affine => self.half(STRIP + lane),
            Scales::Nested => -(self.half(STRIP + lane) * f32::from(self.small[STRIP + lane])),
        }
    }

    /// The unsigned code of column `k`.
    pub fn code(&self, lane: usize, k: usize) -> u8 {
        let (group, byte) = (k / 4, lane * 4 + k % 4);
        if F::BITS == 8 {
            return self.codes[group * GROUP + byte];
        }
        let low = self.codes[group / 2 * GROUP + byte] >> (4 * (group % 2)) & 15;
        let high = &self.codes[4 * GROUP..];
        match F::BITS {
            5 => low | (high[byte] >> group & 1) << 4,
            6 => low | (high[group / 4 * GROUP + byte] >> (2 * (group % 4)) & 3) << 4,
            _ => low,
        }
    }
}

/// # Safety
/// As [`super::super::job::BlockKernel`].
pub(super) unsafe fn kernel<F: Format>(job: &BlockJob) {
    let columns = BLOCK / F::STEPS;
    let mut acc = [0f32; STRIP];
    for index in 0..job.blocks {
        // SAFETY: the job's strip has the chunks that its blocks need, and its row the records.
        let (chunk, x) = unsafe {
            let chunk = job.w.add(index / F::BLOCKS * F::CHUNK);
            (std::slice::from_raw_parts(chunk, F::CHUNK), &*job.x.add(index * job.step))
        };
        let block = Block::<F>::new(chunk, index % F::BLOCKS);
        for (lane, acc) in acc.iter_mut().enumerate() {
            for step in 0..F::STEPS {
                let mut dot = 0;
                for k in step * columns..(step + 1) * columns {
                    let code = i32::from(block.code(lane, k));
                    let offset = if F::OFFSET == 0 { 0 } else { 1 << F::OFFSET };
                    dot += (code - offset) * i32::from(x.q[k]);
                }
                *acc = (dot as f32).mul_add(block.scale(lane, step) * x.d, *acc);
            }
            if F::HAS_MIN {
                *acc = block.min(lane).mul_add(x.ds, *acc);
            }
        }
    }
    // SAFETY: the job's.
    unsafe { job.out.put(0, &acc) };
}
