//! The gated product of the feed-forward block.

use super::exp::exp;
use super::level::versions;
use crate::family::Gate;

versions! {
    /// `out[i] = f(gate[i]) * up[i]`; all of one length.
    pub(crate) fn gated(kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) = body
}

#[inline(always)]
fn body(kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let out = out.iter_mut().zip(gate.iter().zip(up));
    match kind {
        Gate::Silu => out.for_each(|(out, (g, u))| *out = silu(*g) * u),
        Gate::Gelu => out.for_each(|(out, (g, u))| *out = gelu(*g) * u),
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x (1 + tanh z) / 2 = x / (1 + e⁻²ᶻ) with z = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769;
    let z = TWICE_ROOT * x * (0.044_715 * x).mul_add(x, 1.0);
    x / (1.0 + exp(-z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    #[test]
    fn agrees_with_double_precision_on_every_level() {
        let xs: Vec<f32> = (-2000..2000).map(|i| i as f32 / 100.0).collect();
        let ones = vec![1.0; xs.len()];
        for kind in [Gate::Silu, Gate::Gelu] {
            for level in Level::all() {
                let mut out = vec![0.0; xs.len()];
                gated(level, kind, &xs, &ones, &mut out);
                for (&x, &got) in xs.iter().zip(&out) {
                    let x = f64::from(x);
                    let want = match kind {
                        Gate::Silu => x / (1.0 + (-x).exp()),
                        Gate::Gelu => {
                            let z =
                                (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                            0.5 * x * (1.0 + z.tanh())
                        }
                    };
                    assert!(
                        (f64::from(got) - want).abs() < 2e-6 * want.abs().max(1.0),
                        "{kind:?} {x}: {got} {want}"
                    );
                }
            }
        }
    }
}
