//! Rotary positions: one angle a pair of elements and position, and how models stretch them.
//!
//! Su et al., RoFormer (<https://arxiv.org/abs/2104.09864>); `YaRN`, Peng et al.
//! (<https://arxiv.org/abs/2309.00071>).

use std::f64::consts::TAU;

/// How the angles were stretched for a longer context than the pre-training's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Positions are divided by the factor.
    Linear {
        /// How many times longer.
        factor: f32,
    },
    /// Slow pairs are divided, fast ones kept, those between mixed.
    Yarn {
        /// How many times longer.
        factor: f32,
        /// The context before stretching.
        original: usize,
        /// A further factor on cosine and sine.
        attention: f32,
    },
}

/// The angles of one kind of layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Radians a position, one a pair of elements.
    frequencies: Vec<f64>,
    /// Factor on cosine and sine.
    magnitude: f64,
}

impl Rotation {
    /// Angles for heads of which `dims` elements are rotated. `divisors`, one a pair, is the
    /// `rope_freqs` tensor of Llama 3.1 and later.
    pub(crate) fn new(dims: usize, base: f32, scaling: Scaling, divisors: Option<&[f32]>) -> Self {
        let pairs = dims / 2;
        let base = f64::from(base);
        let plain = |pair: usize| {
            let divisor = divisors.map_or(1.0, |d| f64::from(d[pair]));
            base.powf(-2.0 * pair as f64 / dims as f64) / divisor
        };
        let (frequencies, magnitude) = match scaling {
            Scaling::None => ((0..pairs).map(plain).collect(), 1.0),
            Scaling::Linear { factor } => {
                ((0..pairs).map(|pair| plain(pair) / f64::from(factor)).collect(), 1.0)
            }
            Scaling::Yarn { factor, original, attention } => {
                let factor = f64::from(factor);
                let kept = |pair| kept_share(pair, dims, base, original);
                let mixed = |pair| plain(pair) * (kept(pair) + (1.0 - kept(pair)) / factor);
                let magnitude = f64::from(attention) * (1.0 + 0.1 * factor.ln());
                ((0..pairs).map(mixed).collect(), magnitude)
            }
        };
        Self { frequencies, magnitude }
    }

    /// Pairs of elements rotated.
    pub(crate) fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines, then sines, of one position: `2 * pairs` values.
    pub(crate) fn fill(&self, position: usize, out: &mut [f32]) {
        let (cosines, sines) = out.split_at_mut(self.pairs());
        for ((frequency, cosine), sine) in self.frequencies.iter().zip(cosines).zip(sines) {
            let (s, c) = (frequency * position as f64).sin_cos();
            *cosine = (c * self.magnitude) as f32;
            *sine = (s * self.magnitude) as f32;
        }
    }
}

/// `YaRN`'s ramp: 1 for pairs that turn more than 32 times in the original context, 0 for those
/// that turn less than once.
fn kept_share(pair: usize, dims: usize, base: f64, original: usize) -> f64 {
    let pair_of_turns =
        |turns: f64| dims as f64 * (original as f64 / (turns * TAU)).ln() / (2.0 * base.ln());
    let first = pair_of_turns(32.0).floor().max(0.0);
    let last = pair_of_turns(1.0).ceil().min(dims as f64 - 1.0);
    1.0 - ((pair as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pair_turns_one_radian_a_position() {
        let rotation = Rotation::new(4, 10_000.0, Scaling::None, None);
        let mut row = [0.0; 4];
        rotation.fill(1, &mut row);
        let expected = [1f64.cos(), 0.01f64.cos(), 1f64.sin(), 0.01f64.sin()];
        for (got, want) in row.iter().zip(expected) {
            assert!((f64::from(*got) - want).abs() < 1e-7, "{got} is not {want}");
        }
    }

    #[test]
    fn linear_stretching_divides_positions() {
        let plain = Rotation::new(64, 10_000.0, Scaling::None, None);
        let stretched = Rotation::new(64, 10_000.0, Scaling::Linear { factor: 4.0 }, None);
        let (mut a, mut b) = ([0.0; 64], [0.0; 64]);
        plain.fill(25, &mut a);
        stretched.fill(100, &mut b);
        assert_eq!(a, b);
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let scaling = Scaling::Yarn { factor: 4.0, original: 4096, attention: 1.0 };
        let plain = Rotation::new(128, 10_000.0, Scaling::None, None);
        let yarn = Rotation::new(128, 10_000.0, scaling, None);
        assert_eq!(yarn.frequencies[0], plain.frequencies[0]);
        assert!((yarn.frequencies[63] * 4.0 - plain.frequencies[63]).abs() < 1e-12);
        assert!((yarn.magnitude - 1.138_629_436).abs() < 1e-6, "{}", yarn.magnitude);
    }

    #[test]
    fn divisors_slow_their_pairs() {
        let rotation = Rotation::new(4, 100.0, Scaling::None, Some(&[1.0, 8.0]));
        assert_eq!(rotation.frequencies, [1.0, 0.1 / 8.0]);
    }
}
