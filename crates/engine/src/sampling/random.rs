//! Draws that depend on the seed and the place in the output alone, so that a request that is
//! moved, or computed again, draws the same.

/// A number in [0, 1) for the `index`-th draw of a seed.
///
/// The finaliser of `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators"), whose stream is a hash of a counter.
pub(super) fn uniform(seed: u64, index: usize) -> f64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut x = mix(seed).wrapping_add(GAMMA.wrapping_mul(index as u64 + 1));
    x = mix(x);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A seed for a request that brought none.
pub(super) fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even() {
        let mut counts = [0u32; 16];
        for seed in 0..100 {
            for index in 0..1000 {
                counts[(uniform(seed, index) * 16.0) as usize] += 1;
            }
        }
        // 6,250 are expected in each; five standard deviations are 383.
        assert!(counts.iter().all(|&n| n.abs_diff(6250) < 383), "{counts:?}");
    }
}
