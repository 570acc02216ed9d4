//! Small models with random weights, one of each family, written as GGUF files.

use plumb_gguf::{BlockType, writer::GgufWriter};
use std::path::{Path, PathBuf};

pub const VOCAB: usize = 80;
const FFN: usize = 96;
const WIDTH: usize = 64;
const HEADS: usize = 4;

/// What a file says about its model.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub arch: &'static str,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub layers: usize,
    pub ty: BlockType,
    /// Whether the head is a matrix of its own.
    pub head: bool,
    pub bias: bool,
    pub head_norms: bool,
    pub output_norms: bool,
    /// Further keys.
    pub extra: Vec<(&'static str, f32)>,
    pub scaling: Option<&'static str>,
    pub window: Option<u32>,
    pub divisors: bool,
    /// A tensor that is left out.
    pub without: Option<&'static str>,
}

impl Tiny {
    pub fn llama() -> Self {
        Self {
            arch: "llama",
            kv_heads: 2,
            head_dim: WIDTH / HEADS,
            layers: 2,
            ty: BlockType::F32,
            head: true,
            bias: false,
            head_norms: false,
            output_norms: false,
            extra: Vec::new(),
            scaling: None,
            window: None,
            divisors: false,
            without: None,
        }
    }

    pub fn qwen2() -> Self {
        Self {
            arch: "qwen2",
            bias: true,
            head: false,
            extra: vec![("rope.freq_base", 1e6)],
            ..Self::llama()
        }
    }

    pub fn qwen3() -> Self {
        Self { arch: "qwen3", head_norms: true, head_dim: 32, ..Self::llama() }
    }

    pub fn gemma3() -> Self {
        Self {
            arch: "gemma3",
            head_norms: true,
            output_norms: true,
            head: false,
            kv_heads: 1,
            head_dim: 32,
            layers: 7,
            window: Some(20),
            extra: vec![("rope.freq_base", 1e6)],
            ..Self::llama()
        }
    }

    /// Writes the file into a folder.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{}.gguf", self.arch));
        self.writer().write(&path).unwrap();
        path
    }

    pub fn writer(&self) -> GgufWriter {
        let mut file = GgufWriter::new(self.arch);
        let key = |name: &str| format!("{}.{name}", self.arch);
        for (name, value) in [
            ("block_count", self.layers),
            ("embedding_length", WIDTH),
            ("feed_forward_length", FFN),
            ("context_length", 512),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ] {
            file.u32(&key(name), value as u32);
        }
        file.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
        if let Some(window) = self.window {
            file.u32(&key("attention.sliding_window"), window);
        }
        if let Some(scaling) = self.scaling {
            file.string(&key("rope.scaling.type"), scaling);
            file.u32(&key("rope.scaling.original_context_length"), 64);
        }
        for &(name, value) in &self.extra {
            file.f32(&key(name), value);
        }
        self.tensors(&mut file);
        file
    }

    fn tensors(&self, file: &mut GgufWriter) {
        let (q, kv) = (HEADS * self.head_dim, self.kv_heads * self.head_dim);
        let mut tensors = Tensors { file, random: 1, without: self.without };
        tensors.matrix("token_embd.weight", WIDTH, VOCAB, self.ty);
        if self.head {
            tensors.matrix("output.weight", WIDTH, VOCAB, self.ty);
        }
        tensors.vector("output_norm.weight", WIDTH, 1.0);
        if self.divisors {
            tensors.vector("rope_freqs.weight", self.head_dim / 2, 2.0);
        }
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            tensors.vector(&name("attn_norm.weight"), WIDTH, 1.0);
            tensors.vector(&name("ffn_norm.weight"), WIDTH, 1.0);
            for (part, len) in [("q", q), ("k", kv), ("v", kv)] {
                tensors.matrix(&name(&format!("attn_{part}.weight")), WIDTH, len, self.ty);
                if self.bias {
                    tensors.vector(&name(&format!("attn_{part}.bias")), len, 0.0);
                }
            }
            if self.head_norms {
                tensors.vector(&name("attn_q_norm.weight"), self.head_dim, 1.0);
                tensors.vector(&name("attn_k_norm.weight"), self.head_dim, 1.0);
            }
            if self.output_norms {
                tensors.vector(&name("post_attention_norm.weight"), WIDTH, 1.0);
                tensors.vector(&name("post_ffw_norm.weight"), WIDTH, 1.0);
            }
            tensors.matrix(&name("attn_output.weight"), q, WIDTH, self.ty);
            tensors.matrix(&name("ffn_gate.weight"), WIDTH, FFN, self.ty);
            tensors.matrix(&name("ffn_up.weight"), WIDTH, FFN, self.ty);
            tensors.matrix(&name("ffn_down.weight"), FFN, WIDTH, self.ty);
        }
    }
}

struct Tensors<'a> {
    file: &'a mut GgufWriter,
    random: u64,
    without: Option<&'static str>,
}

impl Tensors<'_> {
    fn matrix(&mut self, name: &str, inputs: usize, outputs: usize, ty: BlockType) {
        let values: Vec<f32> =
            (0..inputs * outputs).map(|_| 2.0 * self.next() / (inputs as f32).sqrt()).collect();
        self.add(name, &[inputs, outputs], ty, &encode(ty, &values));
    }

    fn vector(&mut self, name: &str, len: usize, around: f32) {
        let values: Vec<f32> = (0..len).map(|_| around + 0.5 * self.next()).collect();
        self.add(name, &[len], BlockType::F32, &encode(BlockType::F32, &values));
    }

    fn add(&mut self, name: &str, dims: &[usize], ty: BlockType, bytes: &[u8]) {
        if self.without != Some(name) {
            self.file.tensor(name, dims, ty, bytes);
        }
    }

    /// In −1..1.
    fn next(&mut self) -> f32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The types that can be written without a quantiser worth testing.
fn encode(ty: BlockType, values: &[f32]) -> Vec<u8> {
    match ty {
        BlockType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        BlockType::F16 => {
            values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
        }
        BlockType::BF16 => {
            values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
        }
        BlockType::Q8_0 => values.chunks_exact(32).flat_map(q8_0).collect(),
        other => panic!("no encoder for {other}"),
    }
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let greatest = block.iter().fold(0f32, |a, x| a.max(x.abs()));
    let scale = half::f16::from_f32(greatest / 127.0);
    let codes = block.iter().map(|x| (x / scale.to_f32()).round() as i8 as u8);
    scale.to_le_bytes().into_iter().chain(codes).collect()
}
