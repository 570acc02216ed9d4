//! From a model to its list of operations.

use super::op::{Floats, Kind, NormOf, Op, Product, Quantised, Residual, RowSet};
use super::place::{Buffer, place};
use super::{Limits, Plan};
use crate::matrix;
use crate::model::{MatrixId, Model};

/// Compiles a model for steps of at most `limits`.
pub(crate) fn compile(model: &Model, limits: Limits) -> Plan {
    let mut compiler = Compiler { model, limits, ops: Vec::new(), buffers: Vec::new() };
    let logits = compiler.model();
    let Compiler { mut ops, mut buffers, .. } = compiler;
    let arena = place(&mut buffers);
    for op in &mut ops {
        op.kind.resolve(&buffers);
    }
    let logits = Floats { offset: buffers[logits.offset].offset, ..logits };
    Plan { ops, logits, arena, buffers }
}

/// While compiling, the `offset` of rows is the index of their buffer.
struct Compiler<'a> {
    model: &'a Model,
    limits: Limits,
    ops: Vec<Op>,
    buffers: Vec<Buffer>,
}

impl Compiler<'_> {
    fn model(&mut self) -> Floats {
        let model = self.model;
        let config = model.config();
        let turns = self.floats("turns", RowSet::Batch, 2 * model.rotation(false).pairs());
        let windows =
            config.windows.iter().any(Option::is_some) && config.rope != config.rope_windowed;
        let windowed = windows.then(|| self.floats("turns (window)", RowSet::Batch, turns.width));
        self.push(RowSet::Batch, Kind::Turns { full: turns, windowed });
        let mut x = self.floats("x", RowSet::Batch, config.width);
        let scale = config.family.embedding_scale(config.width);
        self.push(RowSet::Batch, Kind::Embed { x, scale });
        let mut residual = None;
        let mut rows = RowSet::Batch;
        for layer in 0..config.layers {
            let turns =
                if config.windows[layer].is_some() { windowed.unwrap_or(turns) } else { turns };
            let mut attended = self.attention(layer, x, residual, turns);
            if layer + 1 == config.layers {
                rows = RowSet::Logits;
                (x, attended) = self.gather(x, attended);
            }
            let y = self.attention_output(layer, rows, attended);
            let y = self.feed_forward(layer, rows, x, self.joins(y));
            residual = Some(self.joins(y));
        }
        let matrices = [("logits", model.weights().head)];
        let input = self.norm(rows, NormOf::Output, x, residual, &matrices);
        self.multiply((rows, "head".into()), input, &matrices)[0]
    }

    fn joins(&self, y: Floats) -> Residual {
        Residual { y, normalised: self.model.config().family.normalises_outputs() }
    }

    fn attention(
        &mut self,
        layer: usize,
        x: Floats,
        residual: Option<Residual>,
        turns: Floats,
    ) -> Floats {
        let weights = &self.model.weights().layers[layer];
        let rows = RowSet::Batch;
        let matrices = [("q", weights.q), ("k", weights.k), ("v", weights.v)];
        let input = self.norm(rows, NormOf::Attention(layer), x, residual, &matrices);
        let outs = self.multiply((rows, format!("{layer} q k v")), input, &matrices);
        let (q, k, v) = (outs[0], outs[1], outs[2]);
        self.push(rows, Kind::Heads { layer, q, k, v, turns });
        let out = self.floats("attended", rows, q.width);
        self.push(rows, Kind::Attend { layer, q, out });
        out
    }

    /// From the last attention on, only rows that need logits matter.
    fn gather(&mut self, x: Floats, attended: Floats) -> (Floats, Floats) {
        let few_x = self.floats("x (logit rows)", RowSet::Logits, x.width);
        let few_attended = self.floats("attended (logit rows)", RowSet::Logits, attended.width);
        let kind = Kind::Gather { from: [x, attended], to: [few_x, few_attended] };
        self.push(RowSet::Logits, kind);
        (few_x, few_attended)
    }

    fn attention_output(&mut self, layer: usize, rows: RowSet, attended: Floats) -> Floats {
        let quantised = self.quantised(rows, attended.width);
        self.push(rows, Kind::Quantise { floats: attended, quantised });
        let output = self.model.weights().layers[layer].output;
        let input = (Some(attended), quantised);
        self.multiply((rows, format!("{layer} o")), input, &[("y", output)])[0]
    }

    fn feed_forward(
        &mut self,
        layer: usize,
        rows: RowSet,
        x: Floats,
        residual: Residual,
    ) -> Floats {
        let weights = &self.model.weights().layers[layer];
        let matrices = [("gate", weights.gate), ("up", weights.up)];
        let input = self.norm(rows, NormOf::Ffn(layer), x, Some(residual), &matrices);
        let outs = self.multiply((rows, format!("{layer} gate up")), input, &matrices);
        let (gate, up) = (outs[0], outs[1]);
        let quantised = self.quantised(rows, gate.width);
        let matrices = [("y", weights.down)];
        let floats = self.read_floats(&matrices);
        self.push(rows, Kind::Gate { gate, up, floats, quantised });
        let input = (floats.then_some(gate), quantised);
        self.multiply((rows, format!("{layer} down")), input, &matrices)[0]
    }

    fn norm(
        &mut self,
        rows: RowSet,
        of: NormOf,
        x: Floats,
        residual: Option<Residual>,
        matrices: &[(&'static str, MatrixId)],
    ) -> (Option<Floats>, Quantised) {
        let floats = self.read_floats(matrices).then(|| self.floats("normalised", rows, x.width));
        let quantised = self.quantised(rows, x.width);
        self.push(rows, Kind::Norm { of, x, residual, floats, quantised });
        (floats, quantised)
    }

    /// Whether one of the matrices is of floats, and reads such.
    fn read_floats(&self, matrices: &[(&'static str, MatrixId)]) -> bool {
        let weights = self.model.weights();
        matrices.iter().any(|&(_, matrix)| weights.matrix(matrix).shape().is_float())
    }

    fn multiply(
        &mut self,
        (rows, label): (RowSet, String),
        (floats, quantised): (Option<Floats>, Quantised),
        matrices: &[(&'static str, MatrixId)],
    ) -> Vec<Floats> {
        let mut products = Vec::new();
        for &(name, matrix) in matrices {
            let width = self.model.weights().matrix(matrix).shape().rows;
            products.push(Product { matrix, out: self.floats(name, rows, width) });
        }
        let outs = products.iter().map(|product| product.out).collect();
        self.push(rows, Kind::Multiply { label, floats, quantised, products });
        outs
    }

    fn push(&mut self, rows: RowSet, mut kind: Kind) {
        let now = self.ops.len();
        kind.each_offset(|buffer| {
            let buffer = &mut self.buffers[*buffer];
            buffer.first = buffer.first.min(now);
            buffer.last = buffer.last.max(now);
        });
        self.ops.push(Op { kind, rows });
    }

    fn floats(&mut self, name: &'static str, rows: RowSet, width: usize) -> Floats {
        let bytes = self.most(rows) * width * size_of::<f32>();
        Floats { offset: self.buffer(name, bytes), width }
    }

    fn quantised(&mut self, rows: RowSet, width: usize) -> Quantised {
        let bytes = matrix::quantised_bytes(self.most(rows), width);
        Quantised { offset: self.buffer("quantised", bytes), width }
    }

    fn most(&self, rows: RowSet) -> usize {
        match rows {
            RowSet::Batch => self.limits.rows,
            RowSet::Logits => self.limits.logit_rows,
        }
    }

    fn buffer(&mut self, name: &'static str, bytes: usize) -> usize {
        self.buffers.push(Buffer { name, bytes, first: usize::MAX, last: 0, offset: 0 });
        self.buffers.len() - 1
    }
}

impl Kind {
    /// Replaces the index of each buffer by its offset.
    fn resolve(&mut self, buffers: &[Buffer]) {
        self.each_offset(|offset| *offset = buffers[*offset].offset);
    }

    fn each_offset(&mut self, mut see: impl FnMut(&mut usize)) {
        match self {
            Self::Turns { full, windowed } => {
                see(&mut full.offset);
                if let Some(windowed) = windowed {
                    see(&mut windowed.offset);
                }
            }
            Self::Embed { x, .. } => see(&mut x.offset),
            Self::Norm { x, residual, floats, quantised, .. } => {
                see(&mut x.offset);
                if let Some(residual) = residual {
                    see(&mut residual.y.offset);
                }
                floats.iter_mut().for_each(|floats| see(&mut floats.offset));
                see(&mut quantised.offset);
            }
            Self::Multiply { floats, quantised, products, .. } => {
                floats.iter_mut().for_each(|floats| see(&mut floats.offset));
                see(&mut quantised.offset);
                products.iter_mut().for_each(|product| see(&mut product.out.offset));
            }
            Self::Heads { q, k, v, turns, .. } => {
                [q, k, v, turns].into_iter().for_each(|floats| see(&mut floats.offset));
            }
            Self::Attend { q, out, .. } => {
                see(&mut q.offset);
                see(&mut out.offset);
            }
            Self::Gather { from, to } => {
                from.iter_mut().chain(to).for_each(|floats| see(&mut floats.offset));
            }
            Self::Quantise { floats, quantised } => {
                see(&mut floats.offset);
                see(&mut quantised.offset);
            }
            Self::Gate { gate, up, quantised, .. } => {
                see(&mut gate.offset);
                see(&mut up.offset);
                see(&mut quantised.offset);
            }
        }
    }
}
