//! Products with weight matrices, shared out by their outputs.

use super::Step;
use crate::plan::{Floats, Product, Quantised};
use crate::threads::Member;
use std::ops::Range;

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
        me.share(parts(strips, members), |part| {
            let Range { mut start, mut end } = strips_of(part, strips, members);
            for product in products {
                let matrix = matrix(product);
                let own = matrix.shape().strips();
                let some = start.min(own)..end.min(own);
                (start, end) = (start - some.start, end - some.end);
                if some.is_empty() {
                    continue;
                }
                // SAFETY: an earlier operation wrote the rows; each part has its own strips.
                unsafe {
                    let x = floats.map_or(&[][..], |floats| self.all(floats, rows));
                    let out = self.arena.as_ptr().add(product.out.offset).cast();
                    matrix.multiply(self.isa, x, self.quantised_at(quantised), rows, out, some);
                }
            }
        });
    }
}

/// Each member's next part is half of its share of what is left: large parts read the rows seldom, and
/// the last ones are small, so that a member that was held up leaves little to wait for.
fn parts(strips: usize, members: usize) -> usize {
    let (mut left, mut parts) = (strips, 0);
    while left > 0 {
        let round = left.div_ceil(size(left, members)).min(members);
        left -= left.min(round * size(left, members));
        parts += round;
    }
    parts
}

fn strips_of(part: usize, strips: usize, members: usize) -> Range<usize> {
    let mut left = strips;
    for _ in 0..part / members {
        left -= left.min(members * size(left, members));
    }
    let first = strips - left + part % members * size(left, members);
    first..strips.min(first + size(left, members))
}

fn size(left: usize, members: usize) -> usize {
    if members == 1 { left } else { (left / (2 * members)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_strips_in_order_and_the_last_are_small() {
        for members in 1..5 {
            for strips in 1..400 {
                let parts = parts(strips, members);
                let mut next = 0;
                for part in 0..parts {
                    let strips_of = strips_of(part, strips, members);
                    assert_eq!(strips_of.start, next, "{strips} {members} {part}");
                    assert!(!strips_of.is_empty());
                    next = strips_of.end;
                }
                assert_eq!(next, strips, "{members}");
                let last = strips_of(parts - 1, strips, members);
                assert!(last.len() == 1 || members == 1, "{strips} {members}: {last:?}");
            }
        }
    }
}
