//! Operations on each row by itself.

use super::Step;
use crate::kernels::gate::gated;
use crate::kernels::norm::{add, add_rms_norm, rms_norm};
use crate::matrix;
use crate::plan::{Floats, NormOf, Quantised, Residual};
use crate::threads::Member;
use std::ops::Range;

/// Rows that a part has at most.
const PART: usize = 16;

impl Step<'_> {
    /// Shares out the rows among the team.
    pub(super) fn each_row(&self, me: &Member<'_>, rows: usize, mut run: impl FnMut(usize)) {
        let size = rows.div_ceil(4 * self.own.len()).clamp(1, PART);
        me.share(rows.div_ceil(size), |part| {
            let range: Range<usize> = part * size..((part + 1) * size).min(rows);
            range.for_each(&mut run);
        });
    }

    pub(super) fn turns(&self, me: &Member<'_>, full: Floats, windowed: Option<Floats>) {
        self.each_row(me, self.rows.len(), |row| {
            let position = self.rows[row].position as usize;
            // SAFETY: each part has its own rows.
            unsafe {
                self.model.rotation(false).fill(position, self.row(full, row));
                if let Some(windowed) = windowed {
                    self.model.rotation(true).fill(position, self.row(windowed, row));
                }
            }
        });
    }

    pub(super) fn embed(&self, me: &Member<'_>, x: Floats, scale: f32) {
        let embedding = self.model.weights().matrix(self.model.weights().embedding);
        self.each_row(me, self.rows.len(), |row| {
            // SAFETY: each part has its own rows.
            let x = unsafe { self.row(x, row) };
            embedding.row(self.rows[row].token as usize, x);
            if scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= scale);
            }
        });
    }

    pub(super) fn norm(
        &self,
        me: &Member<'_>,
        rows: usize,
        (of, residual): (NormOf, Option<Residual>),
        x: Floats,
        floats: Option<Floats>,
        quantised: Quantised,
    ) {
        let (weight, residual_weight) = self.norm_weights(of);
        let (level, eps) = (self.level, self.model.config().norm_eps);
        self.each_row(me, rows, |row| {
            // SAFETY: each part has its own rows.
            unsafe {
                let x = self.row(x, row);
                if let Some(Residual { y, normalised }) = residual {
                    let y = self.row(y, row);
                    match residual_weight {
                        Some(weight) if normalised => add_rms_norm(level, x, y, weight, eps),
                        _ => add(level, x, y),
                    }
                }
                let out = match floats {
                    Some(floats) => self.row(floats, row),
                    None => &mut self.own(me).row[..x.len()],
                };
                rms_norm(level, x, weight, eps, out);
                matrix::quantise(self.isa, out, row, rows, self.quantised_at(quantised));
            }
        });
    }

    /// The weights of a norm, and those of the norm of the block before it.
    fn norm_weights(&self, of: NormOf) -> (&[f32], Option<&[f32]>) {
        let weights = self.model.weights();
        let (weight, before) = match of {
            NormOf::Attention(layer) => {
                let before =
                    layer.checked_sub(1).map(|layer| &weights.layers[layer].ffn_output_norm);
                (&weights.layers[layer].attention_norm, before)
            }
            NormOf::Ffn(layer) => {
                let layer = &weights.layers[layer];
                (&layer.ffn_norm, Some(&layer.attention_output_norm))
            }
            NormOf::Output => {
                (&weights.output_norm, weights.layers.last().map(|layer| &layer.ffn_output_norm))
            }
        };
        (weight, before.and_then(Option::as_deref))
    }

    pub(super) fn quantise(
        &self,
        me: &Member<'_>,
        rows: usize,
        floats: Floats,
        quantised: Quantised,
    ) {
        self.each_row(me, rows, |row| {
            // SAFETY: each part has its own rows.
            unsafe {
                matrix::quantise(
                    self.isa,
                    self.row(floats, row),
                    row,
                    rows,
                    self.quantised_at(quantised),
                )
            };
        });
    }

    pub(super) fn gate(
        &self,
        me: &Member<'_>,
        rows: usize,
        [gate, up]: [Floats; 2],
        floats: bool,
        quantised: Quantised,
    ) {
        let kind = self.model.config().family.gate();
        self.each_row(me, rows, |row| {
            // SAFETY: each part has its own rows.
            unsafe {
                let (gate, up) = (self.row(gate, row), self.row(up, row));
                let out = &mut self.own(me).row[..gate.len()];
                gated(self.level, kind, gate, up, out);
                matrix::quantise(self.isa, out, row, rows, self.quantised_at(quantised));
                if floats {
                    gate.copy_from_slice(out);
                }
            }
        });
    }

    pub(super) fn gather(&self, me: &Member<'_>, from: &[Floats; 2], to: &[Floats; 2]) {
        self.each_row(me, self.logit_rows.len(), |row| {
            let source = self.logit_rows[row] as usize;
            for (&from, &to) in from.iter().zip(to) {
                // SAFETY: each part has its own rows of `to`; nobody writes to `from`.
                unsafe { self.row(to, row).copy_from_slice(self.row(from, source)) };
            }
        });
    }
}
