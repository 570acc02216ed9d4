//! The exponential, vectorisable and the same on every machine.

use super::wide::{ROUND, Wide};

/// What 2ʳ is for |r| ≤ ½, from the highest power down.
const TERMS: [f32; 7] = [
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_410_7e-2,
    2.402_265e-1,
    std::f32::consts::LN_2,
    1.0,
];

/// 2ˣ to within 2 units in the last place for −126 ≤ x ≤ 127; beyond, the value at the bound.
/// 2⁰ is exactly 1, which the online softmax relies on.
///
/// The polynomial is the Taylor series of 2ʳ around 0 for |r| ≤ ½: its first term left out is
/// below 2⁻²⁶.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    exp2_not_above_127(if x > 127.0 { 127.0 } else { x })
}

/// As [`exp2`] for x ≤ 127, which the caller knows. NaN stays NaN: a poisoned row must show.
#[inline(always)]
pub(crate) fn exp2_not_above_127(x: f32) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let rounded = x + ROUND;
    let r = x - (rounded - ROUND);
    let p = TERMS[1..].iter().fold(TERMS[0], |p, term| p.mul_add(r, *term));
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// As [`exp2_not_above_127`], of each lane.
///
/// # Safety
/// As [`Wide`].
#[inline(always)]
pub(crate) unsafe fn exp2_of_each<W: Wide>(x: W) -> W {
    // SAFETY: the caller's promise.
    unsafe {
        let x = W::all(-126.0).greater(x);
        let rounded = x.add(W::all(ROUND));
        let r = x.sub(rounded.sub(W::all(ROUND)));
        let mut p = W::all(TERMS[0]);
        for term in &TERMS[1..] {
            p = p.mul_add(r, W::all(*term));
        }
        p.raise(rounded)
    }
}

/// eˣ, as [`exp2`].
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp2(x * std::f32::consts::LOG2_E)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_double_precision() {
        for step in -125_000..126_000 {
            let x = step as f32 / 1000.0;
            let exact = f64::from(x).exp2();
            let error = (f64::from(exp2(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "2^{x}: relative error {error}");
        }
    }

    #[test]
    fn is_exact_where_it_must_be() {
        assert_eq!(exp2(0.0), 1.0);
        assert_eq!(exp2(-3.0), 0.125);
        assert!(exp2(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(-1000.0) < 1e-37);
        assert!(exp2(1e9).is_finite());
        assert!(exp2(f32::NAN).is_nan());
    }
}
