//! The shape of a model, read from the file's metadata and nothing else.

use crate::Error;
use crate::family::Family;
use crate::rope::Scaling;
use plumb_gguf::{FromValue, Gguf, Value};

/// What the metadata says about a model. Sizes are in elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family, which decides the plan.
    pub family: Family,
    /// `general.name`, where there is one.
    pub name: Option<String>,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width inside the feed-forward block.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// Factor on the scores before the softmax.
    pub attention_scale: f32,
    /// Leading elements of a head that are rotated.
    pub rope_dims: usize,
    /// Rotation of the layers that see everything.
    pub rope: RopeBase,
    /// Rotation of the layers with a window.
    pub rope_windowed: RopeBase,
    /// The window of each layer: a token sees itself and `window - 1` before it; `None` sees all.
    pub windows: Vec<Option<u32>>,
}

/// Base frequency of a rotation and how it was stretched after training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeBase {
    /// θ of RoFormer: the longest wavelength over 2π.
    pub base: f32,
    /// The stretching.
    pub scaling: Scaling,
}

impl Config {
    /// Reads and checks the metadata.
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, Error> {
        let family = Family::of(gguf)?;
        let keys = Keys { gguf, prefix: gguf.architecture() };
        let width = keys.size("embedding_length", 1 << 20)?;
        let heads = keys.size("attention.head_count", 1 << 12)?;
        let kv_heads = keys.size_or("attention.head_count_kv", heads, 1 << 12)?;
        if heads % kv_heads != 0 {
            return Err(keys.bad(
                "attention.head_count_kv",
                format!("{kv_heads} does not divide {heads} heads"),
            ));
        }
        let head_dim = keys.size_or("attention.key_length", width / heads, 1 << 10)?;
        let value_dim = keys.size_or("attention.value_length", head_dim, 1 << 10)?;
        if value_dim != head_dim || head_dim % 16 != 0 {
            return Err(keys.bad(
                "attention.key_length",
                format!("keys of {head_dim} and values of {value_dim}: the engine needs equal multiples of 16"),
            ));
        }
        let layers = keys.size("block_count", 1 << 10)?;
        let rope_dims = keys.size_or("rope.dimension_count", head_dim, 1 << 10)?;
        if rope_dims > head_dim || rope_dims % 2 != 0 {
            return Err(
                keys.bad("rope.dimension_count", format!("{rope_dims} of a head of {head_dim}"))
            );
        }
        let context = keys.size("context_length", 1 << 24)?;
        let rope = keys.rope(context)?;
        let norm_eps = keys.positive("attention.layer_norm_rms_epsilon")?;
        keys.refuse_above("expert_count", 0)?;
        Ok(Self {
            family,
            name: gguf.str("general.name").ok().map(str::to_owned),
            layers,
            width,
            ffn: keys.size("feed_forward_length", 1 << 22)?,
            heads,
            kv_heads,
            head_dim,
            vocab: keys.vocab()?,
            context,
            norm_eps,
            attention_scale: family.attention_scale(layers, width, heads, head_dim),
            rope_dims,
            rope,
            rope_windowed: keys.rope_windowed(rope)?,
            windows: keys.windows(family, layers)?,
        })
    }

    /// Query heads that share a key/value head.
    #[must_use]
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Floats of the widest row that is normalised or gated.
    pub(crate) fn widest(&self) -> usize {
        self.width.max(self.ffn)
    }

    /// Elements of all query heads.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of all key heads (and of all value heads).
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn bad(&self, key: &str, why: impl Into<String>) -> Error {
        Error::Metadata { key: self.full(key), why: why.into() }
    }

    fn get<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, Error> {
        Ok(self.gguf.get(&self.full(key))?)
    }

    /// A size that must be there, at least 1 and at most `most`.
    fn size(&self, key: &str, most: usize) -> Result<usize, Error> {
        let value = self.one_size(key)?.ok_or_else(|| self.bad(key, "is missing"))?;
        self.bounded(key, value, most)
    }

    fn size_or(&self, key: &str, default: usize, most: usize) -> Result<usize, Error> {
        let value = self.one_size(key)?.unwrap_or(default);
        self.bounded(key, value, most)
    }

    fn bounded(&self, key: &str, value: usize, most: usize) -> Result<usize, Error> {
        if (1..=most).contains(&value) {
            Ok(value)
        } else {
            Err(self.bad(key, format!("{value} is outside 1..={most}")))
        }
    }

    /// Some writers give a value a layer; the engine takes it when all are the same.
    fn one_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(Value::Array(array)) = self.gguf.meta(&self.full(key)) else {
            return self.get(key);
        };
        let mut values = array.iter().map(usize::from_value);
        match values.next().flatten() {
            Some(first) if values.all(|value| value == Some(first)) => Ok(Some(first)),
            _ => Err(self.bad(key, "differs between layers, which no plan here supports")),
        }
    }

    fn positive(&self, key: &str) -> Result<f32, Error> {
        let value: f32 = self.get(key)?.ok_or_else(|| self.bad(key, "is missing"))?;
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(self.bad(key, format!("{value} is not a positive number")))
        }
    }

    fn positive_or(&self, key: &str, default: f32) -> Result<f32, Error> {
        if self.gguf.meta(&self.full(key)).is_none() { Ok(default) } else { self.positive(key) }
    }

    fn refuse_above(&self, key: &str, most: u32) -> Result<(), Error> {
        match self.get::<u32>(key)? {
            Some(value) if value > most => Err(self.bad(key, format!("{value} is not supported"))),
            _ => Ok(()),
        }
    }

    fn vocab(&self) -> Result<usize, Error> {
        let embedding = self.gguf.tensor("token_embd.weight").ok_or_else(|| {
            Error::MissingTensor { name: "token_embd.weight".into(), arch: "every model" }
        })?;
        self.bounded("vocab_size", embedding.rows(), 1 << 24)
    }

    /// Base and stretching of the layers that see everything.
    fn rope(&self, context: usize) -> Result<RopeBase, Error> {
        let base = self.positive_or("rope.freq_base", 10_000.0)?;
        let old_linear = self.positive_or("rope.scale_linear", 1.0)?;
        let factor = self.positive_or("rope.scaling.factor", old_linear)?;
        let kind: &str = self.get("rope.scaling.type")?.unwrap_or("linear");
        let scaling = match kind {
            _ if factor == 1.0 => Scaling::None,
            "none" => Scaling::None,
            "linear" => Scaling::Linear { factor },
            "yarn" => Scaling::Yarn {
                factor,
                original: self.size_or("rope.scaling.original_context_length", context, 1 << 24)?,
                attention: self.positive_or("rope.scaling.attn_factor", 1.0)?,
            },
            other => {
                return Err(self.bad("rope.scaling.type", format!("{other:?} is not supported")));
            }
        };
        Ok(RopeBase { base, scaling })
    }

    /// Layers with a window turn faster, and are never stretched.
    fn rope_windowed(&self, full: RopeBase) -> Result<RopeBase, Error> {
        match self.prefix {
            "gemma3" => Ok(RopeBase {
                base: self.positive_or("rope.freq_base_swa", 10_000.0)?,
                scaling: Scaling::None,
            }),
            _ => Ok(full),
        }
    }

    fn windows(&self, family: Family, layers: usize) -> Result<Vec<Option<u32>>, Error> {
        let none = vec![None; layers];
        let Some(period) = family.window_period() else { return Ok(none) };
        let Some(window) = self.get::<u32>("attention.sliding_window")?.filter(|&w| w > 0) else {
            return Ok(none);
        };
        let key = "attention.sliding_window_pattern";
        if let Some(Value::Array(pattern)) = self.gguf.meta(&self.full(key)) {
            let windowed: Vec<_> = pattern.iter().filter_map(bool::from_value).collect();
            if windowed.len() != layers {
                return Err(
                    self.bad(key, format!("{} booleans for {layers} layers", windowed.len()))
                );
            }
            return Ok(windowed.into_iter().map(|w| w.then_some(window)).collect());
        }
        let period = self.size_or(key, period, 1 << 10)?;
        Ok((0..layers).map(|layer| (layer % period < period - 1).then_some(window)).collect())
    }
}
