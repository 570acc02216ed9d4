//! Turning the heads of q and k by their position.

use super::level::versions;
use crate::family::Pairing;

versions! {
    /// Rotates the leading elements of one head in place. `turns` holds the cosines, then the
    /// sines, of its pairs.
    pub(crate) fn rotate(pairing: Pairing, head: &mut [f32], turns: &[f32]) = body
}

#[inline(always)]
fn body(pairing: Pairing, head: &mut [f32], turns: &[f32]) {
    let pairs = turns.len() / 2;
    let (cosines, sines) = turns.split_at(pairs);
    match pairing {
        Pairing::Halves => {
            let (a, b) = head[..2 * pairs].split_at_mut(pairs);
            for i in 0..pairs {
                (a[i], b[i]) = turn(a[i], b[i], cosines[i], sines[i]);
            }
        }
        Pairing::Neighbours => {
            for (i, pair) in head[..2 * pairs].chunks_exact_mut(2).enumerate() {
                (pair[0], pair[1]) = turn(pair[0], pair[1], cosines[i], sines[i]);
            }
        }
    }
}

#[inline(always)]
fn turn(a: f32, b: f32, cosine: f32, sine: f32) -> (f32, f32) {
    (a * cosine - b * sine, a * sine + b * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    #[test]
    fn pairs_are_turned_and_the_rest_left() {
        // A quarter turn of the first pair, none of the second.
        let turns = [0.0, 1.0, 1.0, 0.0];
        for level in Level::all() {
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
            rotate(level, Pairing::Neighbours, &mut head, &turns);
            assert_eq!(head, [-2.0, 1.0, 3.0, 4.0, 5.0]);
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
            rotate(level, Pairing::Halves, &mut head, &turns);
            assert_eq!(head, [-3.0, 2.0, 1.0, 4.0, 5.0]);
        }
    }
}
