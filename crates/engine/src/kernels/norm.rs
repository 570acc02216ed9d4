//! RMS norms: Zhang and Sennrich (<https://arxiv.org/abs/1910.07467>).

use super::level::versions;

/// Independent sums: element `i` goes into sum `i % LANES`, then they are added in pairs.
const LANES: usize = 32;

versions! {
    /// `out = weight * x / sqrt(mean(x²) + eps)`; all of one length.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = norm
}

versions! {
    /// As [`rms_norm`], in place.
    pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = norm_in_place
}

versions! {
    /// `x += y`; both of one length.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) = add_body
}

versions! {
    /// `x += weight * y / sqrt(mean(y²) + eps)`; all of one length.
    pub(crate) fn add_rms_norm(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) = add_norm
}

#[inline(always)]
fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[inline(always)]
fn add_norm(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(y, eps);
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

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = x.chunks_exact(LANES);
    for (sum, x) in sums.iter_mut().zip(whole.remainder()) {
        *sum = x * x;
    }
    for chunk in whole {
        for lane in 0..LANES {
            sums[lane] = chunk[lane].mul_add(chunk[lane], sums[lane]);
        }
    }
    1.0 / (in_pairs(sums) / x.len() as f32 + eps).sqrt()
}

/// The sum of all lanes, halves added until one is left.
#[inline(always)]
pub(crate) fn in_pairs<const N: usize>(mut sums: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
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
