//! Keys and values in bytes: every token of a head has a factor of its own, so that a token is written
//! once and never again, whatever comes after it in its block.

use super::CHUNK;
use crate::kernels::level::versions;

/// Independent maxima.
const LANES: usize = 16;

versions! {
    /// `to[i] = from[i] / factor`, to the nearest byte; the factor makes the greatest of them 127.
    pub(crate) fn narrow(from: &[f32], to: &mut [i8], factor: &mut f32) = narrow_body
}

versions! {
    /// Multiplies the scores or weights of a chunk by the factors of its positions.
    pub(crate) fn scale(weights: &mut [f32; CHUNK], factors: &[f32; CHUNK]) = scale_body
}

#[inline(always)]
fn narrow_body(from: &[f32], to: &mut [i8], factor: &mut f32) {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut greatest = [0.0f32; LANES];
    let (parts, rest) = from.as_chunks::<LANES>();
    for part in parts {
        for lane in 0..LANES {
            greatest[lane] = greater(greatest[lane], part[lane].abs());
        }
    }
    let greatest = greatest.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, greater);
    *factor = greatest / 127.0;
    let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
    for (to, from) in to.iter_mut().zip(from) {
        *to = (from * inverse).round_ties_even() as i8;
    }
}

#[inline(always)]
fn scale_body(weights: &mut [f32; CHUNK], factors: &[f32; CHUNK]) {
    weights.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    #[test]
    fn every_level_rounds_to_the_same_nearest_bytes() {
        let odd: Vec<f32> = (0..83).map(|i| ((i * 7919 % 211) as f32 - 105.0) * 0.013).collect();
        for from in [&odd[..80], &odd, &odd[..3], &[0.0; 16], &[f32::MIN_POSITIVE; 16], &[]] {
            let mut seen: Option<(Vec<i8>, f32)> = None;
            for level in Level::all() {
                let (mut to, mut factor) = (vec![99; from.len()], f32::NAN);
                narrow(level, from, &mut to, &mut factor);
                for (&byte, &x) in to.iter().zip(from) {
                    let error = (f32::from(byte) * factor - x).abs();
                    assert!(error <= factor * 0.500_01, "{level:?}: {byte} times {factor} for {x}");
                }
                let got = (to, factor);
                assert_eq!(seen.get_or_insert_with(|| got.clone()), &got, "{level:?}");
            }
        }
    }
}
