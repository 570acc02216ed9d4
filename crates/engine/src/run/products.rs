//! Products with weight matrices, shared out by their outputs.

use super::Step;
use crate::matrix::Matrix;
use crate::plan::{Floats, Product, Quantised};
use crate::threads::Member;

/// Parts a member, so that one that is held up leaves little to wait for.
const PARTS: usize = 6;

impl Step<'_> {
    pub(super) fn multiply(
        &self,
        me: &Member<'_>,
        rows: usize,
        floats: Option<Floats>,
        quantised: Quantised,
        products: &[Product],
    ) {
        let matrix = |product: &Product| self.model.weights().matrix(product.matrix);
        let strips: usize = products.iter().map(|product| matrix(product).shape().strips()).sum();
        let members = self.own.len();
        let size = if members == 1 { strips } else { strips.div_ceil(members * PARTS) };
        let parts = |matrix: &Matrix| matrix.shape().strips().div_ceil(size);
        let all = products.iter().map(|product| parts(matrix(product))).sum();
        me.share(all, |mut part| {
            for product in products {
                let matrix = matrix(product);
                let own = parts(matrix);
                if part >= own {
                    part -= own;
                    continue;
                }
                let strips = part * size..((part + 1) * size).min(matrix.shape().strips());
                // SAFETY: an earlier operation wrote the rows; each part has its own strips.
                unsafe {
                    let x = floats.map_or(&[][..], |floats| self.all(floats, rows));
                    let out = self.arena.as_ptr().add(product.out.offset).cast();
                    matrix.multiply(self.isa, x, self.quantised_at(quantised), rows, out, strips);
                }
                return;
            }
        });
    }
}
