//! From the products q, k and v to turned queries and to keys and values in the cache.

use super::{Row, Step};
use crate::kernels::norm::{add, rms_norm_in_place};
use crate::kernels::rotate::rotate;
use crate::model::Layer;
use crate::plan::Floats;
use crate::threads::Member;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The longest head: metadata is refused beyond it.
const LONGEST: usize = 1024;

impl Step<'_> {
    pub(super) fn heads(
        &self,
        me: &Member<'_>,
        layer: usize,
        [q, k, v]: [Floats; 3],
        turns: Floats,
    ) {
        let weights = &self.model.weights().layers[layer];
        self.each_row(me, self.rows.len(), |row| {
            // SAFETY: each part has its own rows.
            unsafe {
                let (q, k, v) = (self.row(q, row), self.row(k, row), self.row(v, row));
                let turns = self.row(turns, row);
                self.add_biases(weights, q, k, v);
                self.turn(q, weights.q_norm.as_deref(), turns);
                self.turn(k, weights.k_norm.as_deref(), turns);
                self.store(layer, self.rows[row], k, v);
            }
        });
    }

    fn add_biases(&self, weights: &Layer, q: &mut [f32], k: &mut [f32], v: &mut [f32]) {
        for (x, bias) in [(q, &weights.q_bias), (k, &weights.k_bias), (v, &weights.v_bias)] {
            if let Some(bias) = bias {
                add(self.level, x, bias);
            }
        }
    }

    /// Normalises, where the family does, and rotates every head.
    fn turn(&self, heads: &mut [f32], norm: Option<&[f32]>, turns: &[f32]) {
        let config = self.model.config();
        let pairing = config.family.pairing();
        for head in heads.chunks_exact_mut(config.head_dim) {
            if let Some(weight) = norm {
                rms_norm_in_place(self.level, head, weight, config.norm_eps);
            }
            rotate(self.level, pairing, head, turns);
        }
    }

    /// Writes one token's keys and values to its place in the cache.
    ///
    /// # Safety
    /// The row's block is its slice's alone, and no other part writes this token.
    unsafe fn store(&self, layer: usize, row: Row, k: &[f32], v: &[f32]) {
        let (dim, tokens) = (self.model.config().head_dim, self.block_tokens);
        let block = self.batch[row.slice as usize].blocks[row.position as usize / tokens];
        let token = row.position as usize % tokens;
        let base = self.view.layer(block, layer).as_ptr().cast::<f16>();
        let mut halves = [f16::ZERO; LONGEST];
        let halves = &mut halves[..dim];
        for (head, keys) in k.chunks_exact(dim).enumerate() {
            halves.convert_from_f32_slice(keys);
            for (i, half) in halves.iter().enumerate() {
                // SAFETY: K is `[kv_head][head_dim][token]`; the caller's promise.
                unsafe { base.add((head * dim + i) * tokens + token).write(*half) };
            }
        }
        // SAFETY: V lies behind the K of all heads.
        let base = unsafe { base.add(k.len() * tokens) };
        for (head, values) in v.chunks_exact(dim).enumerate() {
            halves.convert_from_f32_slice(values);
            // SAFETY: V is `[kv_head][token][head_dim]`; the caller's promise.
            unsafe {
                let at = base.add((head * tokens + token) * dim);
                std::ptr::copy_nonoverlapping(halves.as_ptr(), at, dim);
            }
        }
    }
}
