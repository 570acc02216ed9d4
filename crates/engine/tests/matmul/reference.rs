//! The reference kernels against plain arithmetic on dequantised weights.

use crate::support::{Matrix, Random, portable, tensor};
use plumb_gguf::{BlockType, dequant};

fn dequantised(ty: BlockType, cols: usize, tensor: &[u8]) -> Vec<f32> {
    let bytes = ty.row_bytes(cols).unwrap();
    let mut out = vec![0.0; tensor.len() / bytes * cols];
    for (row, out) in tensor.chunks(bytes).zip(out.chunks_mut(cols)) {
        dequant::row(ty, row, out);
    }
    out
}

/// Quantising moves an activation by at most half a step of its block, `max |x| / 254`; floats add
/// a rounding error of 2⁻²⁴ an operation, of which an element sees fewer than its columns.
fn bound(ty: BlockType, w: &[f32], x: &[f32]) -> f64 {
    let floats = matches!(ty, BlockType::F32 | BlockType::F16 | BlockType::BF16);
    let mut bound = 0.0;
    for (w, x) in w.chunks(32).zip(x.chunks(32)) {
        let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
        let step = if floats { 0.0 } else { f64::from(largest) / 254.0 };
        for w in w {
            bound += f64::from(w.abs()) * step * 1.001;
        }
    }
    // A minimum and the codes above it may cancel: the error is relative to both, not to w.
    let largest = |v: &[f32]| v.iter().fold(0f32, |m, x| m.max(x.abs()));
    bound + f64::from(largest(w) * largest(x)) * 64.0 * (w.len() * w.len()) as f64 * 2f64.powi(-24)
}

#[test]
fn products_are_within_the_error_of_quantised_activations() {
    let mut random = Random(10);
    for ty in BlockType::ALL {
        for (rows, blocks) in [(1, 1), (5, 3), (18, 2)] {
            let cols = blocks * ty.block_len();
            let bytes = tensor(ty, rows, cols, &mut random);
            let w = dequantised(ty, cols, &bytes);
            let x = random.floats(3 * cols);
            let got = Matrix::new(ty, rows, cols, &bytes).times(portable(), &x);
            for (x, got) in x.chunks(cols).zip(got.chunks(rows)) {
                for (w, &got) in w.chunks(cols).zip(got) {
                    let want: f64 =
                        w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                    let error = (f64::from(got) - want).abs();
                    let bound = bound(ty, w, x);
                    assert!(error <= bound, "{ty}: {got} for {want}, bound {bound}");
                }
            }
        }
    }
}

#[test]
fn a_packed_row_dequantises_to_the_files_values() {
    let mut random = Random(11);
    for ty in BlockType::ALL {
        let (rows, cols) = (37, 3 * ty.block_len());
        let bytes = tensor(ty, rows, cols, &mut random);
        let matrix = Matrix::new(ty, rows, cols, &bytes);
        let mut got = vec![0.0; cols];
        for (row, want) in dequantised(ty, cols, &bytes).chunks(cols).enumerate() {
            matrix.view().row(row, &mut got);
            assert_eq!(got, want, "{ty}, row {row}");
        }
    }
}

#[test]
fn float_weights_of_any_width_multiply_exactly_small_integers() {
    for cols in [1, 7, 31, 100] {
        let w: Vec<f32> = (0..3 * cols).map(|i| (i % 17) as f32 - 8.0).collect();
        let x: Vec<f32> = (0..2 * cols).map(|i| (i % 13) as f32 - 6.0).collect();
        let bytes: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
        let got = Matrix::new(BlockType::F32, 3, cols, &bytes).times(portable(), &x);
        let want: Vec<f32> = x
            .chunks(cols)
            .flat_map(|x| {
                w.chunks(cols).map(move |w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>())
            })
            .collect();
        assert_eq!(got, want, "{cols} columns");
    }
}
