//! What differs between the families of models, as answers to the questions that the plan asks.

use crate::Error;
use plumb_gguf::Gguf;

/// A family of models with one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama, Mistral, SmolLM: RMS norms, SwiGLU, neighbouring elements rotated together.
    Llama,
    /// Qwen2: as Llama with biases on q, k and v, and halves rotated together.
    Qwen2,
    /// Qwen3: as Llama with norms on q and k, and halves rotated together.
    Qwen3,
    /// Gemma 3: norms before and after each block and on q and k, GeGLU, windows.
    Gemma3,
}

/// The gate's function in the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// x · σ(x).
    Silu,
    /// x · Φ(x), by the tanh approximation.
    Gelu,
}

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (0, 1), (2, 3), …: what llama.cpp calls NORM.
    Neighbours,
    /// (0, n/2), (1, n/2 + 1), …: what llama.cpp calls NEOX.
    Halves,
}

impl Family {
    const KNOWN: &str = "llama (Llama, Mistral, SmolLM), qwen2, qwen3, gemma3";

    /// The family of a file.
    pub(crate) fn of(gguf: &Gguf) -> Result<Self, Error> {
        match gguf.architecture() {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3" => Ok(Self::Gemma3),
            other => Err(Error::Architecture { found: other.to_owned(), known: Self::KNOWN }),
        }
    }

    /// The name in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    pub(crate) fn gate(self) -> Gate {
        if self == Self::Gemma3 { Gate::Gelu } else { Gate::Silu }
    }

    pub(crate) fn pairing(self) -> Pairing {
        if self == Self::Llama { Pairing::Neighbours } else { Pairing::Halves }
    }

    /// Norms on each head of q and k.
    pub(crate) fn normalises_heads(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    /// Norms on the output of each block, before it joins the residual stream.
    pub(crate) fn normalises_outputs(self) -> bool {
        self == Self::Gemma3
    }

    /// Biases that the family always has; the others may have them.
    pub(crate) fn needs_qkv_bias(self) -> bool {
        self == Self::Qwen2
    }

    /// Factor on the embedding as it enters the residual stream.
    pub(crate) fn embedding_scale(self, width: usize) -> f32 {
        if self == Self::Gemma3 { (width as f32).sqrt() } else { 1.0 }
    }

    /// Gemma 3 27B alone scales by its width a head instead of its head's own.
    pub(crate) fn attention_scale(
        self,
        layers: usize,
        width: usize,
        heads: usize,
        head_dim: usize,
    ) -> f32 {
        let divisor = if self == Self::Gemma3 && layers == 62 { width / heads } else { head_dim };
        1.0 / (divisor as f32).sqrt()
    }

    /// Of how many layers the last one sees everything, where the file has a window.
    pub(crate) fn window_period(self) -> Option<usize> {
        (self == Self::Gemma3).then_some(6)
    }
}
