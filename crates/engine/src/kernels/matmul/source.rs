//! Reads GGUF's blocks into codes and scales, before they are placed in the packed order.
//!
//! Layouts are those of ggml's `ggml-common.h`.

use plumb_gguf::BlockType;

/// One block of a file, taken apart. A type of 32 columns uses the first 32 codes.
pub(super) struct Parts {
    /// Unsigned codes.
    pub codes: [u8; 256],
    /// Bits of the f16 scale.
    pub d: u16,
    /// Bits of the f16 minimum (`m` or `dmin`).
    pub m: u16,
    /// Scales within a block of 256: 8 of six bits, or 16 signed bytes.
    pub scales: [u8; 16],
    /// Minimums within a block of 256, six bits.
    pub mins: [u8; 8],
}

impl Parts {
    pub fn new() -> Self {
        Self { codes: [0; 256], d: 0, m: 0, scales: [0; 16], mins: [0; 8] }
    }

    /// Takes a block apart. `block` is exactly one block of a quantised `ty`.
    pub fn read(&mut self, ty: BlockType, block: &[u8]) {
        let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        self.d = half(if ty == BlockType::Q6_K { 208 } else { 0 });
        match ty {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                unreachable!("floats are not blocks")
            }
            BlockType::Q8_0 => {
                for (code, &q) in self.codes.iter_mut().zip(&block[2..34]) {
                    *code = q ^ 0x80;
                }
            }
            BlockType::Q4_0 => self.nibbles(&block[2..18]),
            BlockType::Q4_1 => {
                self.m = half(2);
                self.nibbles(&block[4..20]);
            }
            BlockType::Q5_0 => {
                self.nibbles(&block[6..22]);
                self.fifth_bits(&block[2..6]);
            }
            BlockType::Q5_1 => {
                self.m = half(2);
                self.nibbles(&block[8..24]);
                self.fifth_bits(&block[4..8]);
            }
            BlockType::Q4_K => {
                self.m = half(2);
                self.six_bit_scales(&block[4..16]);
                self.nibbles_of_256(&block[16..144]);
            }
            BlockType::Q5_K => {
                self.m = half(2);
                self.six_bit_scales(&block[4..16]);
                self.nibbles_of_256(&block[48..176]);
                self.fifth_bits_of_256(&block[16..48]);
            }
            BlockType::Q6_K => self.six_bits(&block[..128], &block[128..192], &block[192..208]),
        }
    }

    fn nibbles(&mut self, qs: &[u8]) {
        for (j, &q) in qs.iter().enumerate() {
            self.codes[j] = q & 15;
            self.codes[j + 16] = q >> 4;
        }
    }

    fn fifth_bits(&mut self, qh: &[u8]) {
        let bits = u32::from_le_bytes([qh[0], qh[1], qh[2], qh[3]]);
        for (j, code) in self.codes[..32].iter_mut().enumerate() {
            *code |= ((bits >> j & 1) << 4) as u8;
        }
    }

    fn nibbles_of_256(&mut self, qs: &[u8]) {
        for (codes, qs) in self.codes.chunks_exact_mut(64).zip(qs.chunks_exact(32)) {
            for (j, &q) in qs.iter().enumerate() {
                codes[j] = q & 15;
                codes[j + 32] = q >> 4;
            }
        }
    }

    fn fifth_bits_of_256(&mut self, qh: &[u8]) {
        for (i, codes) in self.codes.chunks_exact_mut(32).enumerate() {
            for (code, &bits) in codes.iter_mut().zip(qh) {
                *code |= (bits >> i & 1) << 4;
            }
        }
    }

    /// Eight six-bit scales and minimums in 12 bytes: the first four whole, the others in pieces.
    fn six_bit_scales(&mut self, s: &[u8]) {
        for j in 0..4 {
            self.scales[j] = s[j] & 63;
            self.mins[j] = s[j + 4] & 63;
            self.scales[j + 4] = s[j + 8] & 15 | s[j] >> 6 << 4;
            self.mins[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
        }
    }

    fn six_bits(&mut self, ql: &[u8], qh: &[u8], scales: &[u8]) {
        self.scales.copy_from_slice(scales);
        for half in 0..2 {
            let (ql, qh) = (&ql[half * 64..][..64], &qh[half * 32..][..32]);
            let codes = &mut self.codes[half * 128..][..128];
            for j in 0..32 {
                codes[j] = ql[j] & 15 | (qh[j] & 3) << 4;
                codes[j + 32] = ql[j + 32] & 15 | (qh[j] >> 2 & 3) << 4;
                codes[j + 64] = ql[j] >> 4 | (qh[j] >> 4 & 3) << 4;
                codes[j + 96] = ql[j + 32] >> 4 | qh[j] >> 6 << 4;
            }
        }
    }
}
