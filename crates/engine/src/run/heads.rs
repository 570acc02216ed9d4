//! From the products q, k and v to turned queries and to keys and values in the cache.

use super::{Row, Step};
use crate::kernels::attention::{Element, Kept, narrow};
use crate::kernels::norm::{add, rms_norm_in_place};
use crate::kernels::rotate::rotate;
use crate::model::{KvType, Layer};
use crate::plan::Floats;
use crate::threads::Member;

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
                match self.kv {
                    KvType::Int16 => self.store::<i16>(layer, self.rows[row], k, v),
                    KvType::Int8 => self.store::<i8>(layer, self.rows[row], k, v),
                }
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
    unsafe fn store<E: Element>(&self, layer: usize, row: Row, k: &[f32], v: &[f32]) {
        let (dim, tokens) = (self.model.config().head_dim, self.block_tokens);
        let block = self.batch[row.slice as usize].blocks[row.position as usize / tokens];
        let token = row.position as usize % tokens;
        let (base, heads) = (self.kept(block, layer), self.model.config().kv_heads);
        let mut numbers = [0; LONGEST];
        let numbers = &mut numbers[..dim];
        for (head, (keys, values)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let kept = Kept::<E>::of(base, head, heads, dim, tokens);
            // SAFETY: a head's K has a pair of dimensions a token, its V a pair of tokens a dimension,
            // and both a factor a token; the caller's promise. The other half of a pair of tokens may
            // be written at the same time.
            unsafe {
                narrow(self.level, keys, E::GREATEST, numbers, &mut *kept.key_factors.add(token));
                for (i, pair) in numbers.as_chunks::<2>().0.iter().enumerate() {
                    kept.keys.add(i * tokens + token).write(pair.map(E::of));
                }
                narrow(
                    self.level,
                    values,
                    E::GREATEST,
                    numbers,
                    &mut *kept.value_factors.add(token),
                );
                let at = kept.values.cast::<E>().add(token / 2 * dim * 2 + token % 2);
                for (i, number) in numbers.iter().enumerate() {
                    at.add(2 * i).write(E::of(*number));
                }
            }
        }
    }
}
