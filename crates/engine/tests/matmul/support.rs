//! Matrices and rows made of seeded random numbers, and the shortest way to multiply them.

use half::f16;
use plumb_engine::kernels::matmul::{self, Activations, Input, Isa, Output, Packed, Shape};
use plumb_gguf::BlockType;

/// `SplitMix64`: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Between −1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// A GGUF tensor whose codes are random bits and whose scales are ordinary numbers.
pub fn tensor(ty: BlockType, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    let blocks = rows * cols / ty.block_len();
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let start = bytes.len();
        bytes.extend((0..ty.block_bytes()).map(|_| random.next() as u8));
        let block = &mut bytes[start..];
        let mut scale = |at: usize| {
            let value = f16::from_f32(random.unit() * 0.1);
            block[at..at + 2].copy_from_slice(&value.to_le_bytes());
        };
        match ty {
            BlockType::F32 => {
                let value = random.unit();
                block.copy_from_slice(&value.to_le_bytes());
            }
            BlockType::F16 => scale(0),
            BlockType::BF16 => {
                let value = half::bf16::from_f32(random.unit());
                block.copy_from_slice(&value.to_le_bytes());
            }
            BlockType::Q6_K => scale(208),
            BlockType::Q8_0 | BlockType::Q4_0 | BlockType::Q5_0 => scale(0),
            _ => {
                scale(0);
                scale(2);
            }
        }
    }
    bytes
}

/// Bytes at a multiple of 64.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn new(len: usize) -> Self {
        let bytes = vec![0xa5; len + matmul::ALIGN];
        let start = bytes.as_ptr().align_offset(matmul::ALIGN);
        Self { bytes, start, len }
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// A packed matrix that owns its bytes.
pub struct Matrix {
    pub shape: Shape,
    pub bytes: Aligned,
}

impl Matrix {
    pub fn new(ty: BlockType, rows: usize, cols: usize, tensor: &[u8]) -> Self {
        let shape = Shape::new(ty, rows, cols).expect("a shape of whole blocks");
        let mut bytes = Aligned::new(shape.packed_bytes());
        matmul::pack(shape, tensor, bytes.get_mut()).expect("lengths that fit");
        Self { shape, bytes }
    }

    pub fn view(&self) -> Packed<'_> {
        Packed::from_bytes(self.shape, self.bytes.get()).expect("aligned bytes that fit")
    }

    /// The product with the rows of `x`: one row of results each.
    pub fn times(&self, isa: Isa, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.shape.cols;
        let mut out = vec![f32::from_bits(0xdead_beef); rows * self.shape.rows];
        let mut buffer = Aligned::new(Activations::bytes(rows, self.shape.cols));
        let mut blocks = Activations::over(buffer.get_mut(), rows, self.shape.cols).unwrap();
        blocks.quantize(isa, x);
        let input = Input { floats: x, blocks };
        let output = Output::new(&mut out, self.shape.rows);
        // SAFETY: nobody else knows the buffers.
        unsafe {
            matmul::matmul(isa, &self.view(), &input, &output, 0..self.shape.strips());
        }
        out
    }
}

pub fn portable() -> Isa {
    Isa::named("portable").expect("always there")
}

/// Bits, with every NaN alike: which NaN an operation gives is not ours to say.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits()).collect()
}
