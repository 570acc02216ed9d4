//! One operation: what it reads, what it writes, over which rows.

use crate::model::MatrixId;

/// The rows that an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowSet {
    /// All tokens of the step.
    Batch,
    /// The tokens that need logits.
    Logits,
}

/// Rows of `width` floats at an offset in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floats {
    pub(crate) offset: usize,
    pub(crate) width: usize,
}

/// Rows quantised for products, at an offset in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantised {
    pub(crate) offset: usize,
    pub(crate) width: usize,
}

/// What joins the residual stream before a norm reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual {
    pub(crate) y: Floats,
    /// Whether `y` is normalised first, and the layer and block of the weights of that norm.
    pub(crate) normalised: bool,
}

/// One matrix times the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) matrix: MatrixId,
    pub(crate) out: Floats,
}

/// A norm of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormOf {
    /// Before the attention of a layer.
    Attention(usize),
    /// Before the feed-forward block of a layer.
    Ffn(usize),
    /// Before the head.
    Output,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Cosines and sines of every row's position, one table a kind of layer.
    Turns { full: Floats, windowed: Option<Floats> },
    /// `x = embedding[token]`, scaled.
    Embed { x: Floats, scale: f32 },
    /// `x += residual`, then `norm(x)` quantised, and as `floats` where a matrix reads those.
    Norm {
        of: NormOf,
        x: Floats,
        residual: Option<Residual>,
        floats: Option<Floats>,
        quantised: Quantised,
    },
    /// Products of the same rows with several matrices.
    Multiply { label: String, floats: Option<Floats>, quantised: Quantised, products: Vec<Product> },
    /// Biases, norms and rotation of q and k; k and v into the cache.
    Heads { layer: usize, q: Floats, k: Floats, v: Floats, turns: Floats },
    /// Attention of q over the cache.
    Attend { layer: usize, q: Floats, out: Floats },
    /// The rows that need logits, out of all.
    Gather { from: [Floats; 2], to: [Floats; 2] },
    /// Quantises rows.
    Quantise { floats: Floats, quantised: Quantised },
    /// `f(gate) · up` quantised, and in place of `gate` where a matrix reads `floats`.
    Gate { gate: Floats, up: Floats, floats: bool, quantised: Quantised },
}

/// One operation of a plan.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) rows: RowSet,
}
