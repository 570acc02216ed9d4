//! RMS norms: Zhang and Sennrich (<https://arxiv.org/abs/1910.07467>).

use super::level::versions;
use super::wide::{LANES, Wide, wide_versions};

wide_versions! {
    /// `out = weight * x / sqrt(mean(x²) + eps)`; all of one length.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = norm
}

wide_versions! {
    /// As [`rms_norm`], in place.
    pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = norm_in_place
}

versions! {
    /// `x += y`; both of one length.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) = add_body
}

wide_versions! {
    /// `x += weight * y / sqrt(mean(y²) + eps)`; all of one length.
    pub(crate) fn add_rms_norm(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) = add_norm
}

#[inline(always)]
unsafe fn norm<W: Wide>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    let scale = unsafe { inverse_rms::<W>(x, eps) };
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
unsafe fn norm_in_place<W: Wide>(x: &mut [f32], weight: &[f32], eps: f32) {
    // SAFETY: the caller's promise.
    let scale = unsafe { inverse_rms::<W>(x, eps) };
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[inline(always)]
unsafe fn add_norm<W: Wide>(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) {
    // SAFETY: the caller's promise.
    let scale = unsafe { inverse_rms::<W>(y, eps) };
    for ((x, y), weight) in x.iter_mut().zip(y).zip(weight) {
        *x += y * scale * weight;
    }
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// In independent sums, twice as many as lanes: enough to hide the latency.
#[inline(always)]
unsafe fn inverse_rms<W: Wide>(x: &[f32], eps: f32) -> f32 {
    let (pairs, rest) = x.as_chunks::<{ 2 * LANES }>();
    let mut padded = [0.0; 2 * LANES];
    padded[..rest.len()].copy_from_slice(rest);
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [W::all(0.0); 2];
        for pair in pairs.iter().chain([&padded]) {
            for (sum, part) in sums.iter_mut().zip(pair.as_chunks().0) {
                let part = W::load(part);
                *sum = part.mul_add(part, *sum);
            }
        }
        1.0 / (sums[0].add(sums[1]).sum() / x.len() as f32 + eps).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::Level;

    #[test]
    fn agrees_with_double_precision_and_between_levels() {
        for len in [1, 7, 31, 32, 33, 64, 100, 576, 640] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let weight: Vec<f32> = (0..len).map(|i| 0.5 + (i % 5) as f32).collect();
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / len as f64;
            let mut first: Option<Vec<f32>> = None;
            for level in Level::all() {
                let mut out = vec![0.0; len];
                rms_norm(level, &x, &weight, 1e-5, &mut out);
                for i in 0..len {
                    let want = f64::from(x[i]) * f64::from(weight[i]) / (mean + 1e-5).sqrt();
                    assert!(
                        (f64::from(out[i]) - want).abs() <= 1e-5 * want.abs(),
                        "{len}: {} {want}",
                        out[i]
                    );
                }
                let mut twice = x.clone();
                rms_norm_in_place(level, &mut twice, &weight, 1e-5);
                assert_eq!(twice, out);
                let mut added = x.clone();
                add_rms_norm(level, &mut added, &x, &weight, 1e-5);
                let sums: Vec<f32> = x.iter().zip(&out).map(|(x, n)| x + n).collect();
                assert_eq!(added, sums);
                assert_eq!(first.get_or_insert(out.clone()), &out, "levels differ at {len}");
            }
        }
    }
}
