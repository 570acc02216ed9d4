//! Extreme numbers and wrong sizes.

use crate::support::{Aligned, Matrix, Random, bits, portable, tensor};
use half::f16;
use plumb_engine::kernels::matmul::{self, Activations, Isa, PackError, Packed, Shape};
use plumb_gguf::BlockType;

/// A tensor of one block a row whose codes are all of the given bits.
fn extreme(ty: BlockType, rows: usize, fill: u8) -> Vec<u8> {
    let mut random = Random(5);
    let mut bytes = tensor(ty, rows, ty.block_len(), &mut random);
    for block in bytes.chunks_mut(ty.block_bytes()) {
        let d = f16::from_f32(1.0).to_le_bytes();
        let codes = match ty {
            BlockType::Q6_K => 0..192,
            BlockType::Q8_0 | BlockType::Q4_0 => 2..ty.block_bytes(),
            BlockType::Q5_0 => 2..22,
            BlockType::Q4_K | BlockType::Q5_K => 16..ty.block_bytes(),
            _ => 4..ty.block_bytes(),
        };
        let at = if ty == BlockType::Q6_K { 208 } else { 0 };
        block[codes].fill(fill);
        block[at..at + 2].copy_from_slice(&d);
    }
    bytes
}

/// 16-bit sums overflow here, if anywhere: the largest codes by the largest activations.
#[test]
fn the_largest_codes_and_activations_do_not_saturate() {
    let quantised = BlockType::ALL.into_iter().filter(|ty| ty.block_len() > 1);
    for ty in quantised {
        for fill in [0x00, 0x7f, 0x80, 0x81, 0xff] {
            let (rows, cols) = (16, ty.block_len());
            let w = Matrix::new(ty, rows, cols, &extreme(ty, rows, fill));
            let signs = [|_| 1.0, |_| -1.0, |k| if k % 2 == 0 { 1.0 } else { -1.0 }];
            let x: Vec<f32> =
                signs.iter().flat_map(|sign: &fn(usize) -> f32| (0..cols).map(sign)).collect();
            let want = w.times(portable(), &x);
            for isa in Isa::all() {
                assert_eq!(w.times(isa, &x), want, "{ty} of {fill:#x}, {}", isa.name());
            }
        }
    }
}

#[test]
fn minus_128_by_the_largest_activations_is_exact() {
    let w = Matrix::new(BlockType::Q8_0, 1, 32, &extreme(BlockType::Q8_0, 1, 0x80));
    for isa in Isa::all() {
        // The scale of the activations is 127 / 127 = 1.
        assert_eq!(w.times(isa, &[127.0; 32]), [-128.0 * 127.0 * 32.0], "{}", isa.name());
        assert_eq!(w.times(isa, &[-127.0; 32]), [128.0 * 127.0 * 32.0], "{}", isa.name());
    }
}

#[test]
fn activations_that_are_not_finite_poison_their_row_alone() {
    let mut random = Random(6);
    for ty in BlockType::ALL {
        let (rows, cols) = (17, 2 * ty.block_len().max(32));
        let w = Matrix::new(ty, rows, cols, &tensor(ty, rows, cols, &mut random));
        let clean = random.floats(3 * cols);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = clean.clone();
            x[cols + 3] = poison;
            for isa in Isa::all() {
                let (want, got) = (w.times(isa, &clean), w.times(isa, &x));
                assert_eq!(bits(&got[..rows]), bits(&want[..rows]));
                assert_eq!(bits(&got[2 * rows..]), bits(&want[2 * rows..]));
                let poisoned = &got[rows..2 * rows];
                assert!(poisoned.iter().all(|y| !y.is_finite()), "{ty}: {poisoned:?}");
            }
        }
    }
}

#[test]
fn any_bits_as_scales_and_activations_give_the_reference_bits() {
    let mut random = Random(7);
    for ty in BlockType::ALL {
        let (rows, cols) = (16, 2 * ty.block_len().max(32));
        let bytes: Vec<u8> =
            (0..rows * ty.row_bytes(cols).unwrap()).map(|_| random.next() as u8).collect();
        let w = Matrix::new(ty, rows, cols, &bytes);
        for magnitude in [1e-38, 1e-31, 1e-20, 1e20, 1e38] {
            let x: Vec<f32> = random.floats(5 * cols).iter().map(|x| x * magnitude).collect();
            let want = bits(&w.times(portable(), &x));
            for isa in Isa::all() {
                assert!(bits(&w.times(isa, &x)) == want, "{ty} by {magnitude}, {}", isa.name());
            }
        }
    }
}

#[test]
fn ties_round_to_even_on_every_path() {
    // With a largest magnitude of 127 the scale is 1: halves are ties.
    let mut x = vec![0.0; 32];
    for (k, x) in x.iter_mut().enumerate() {
        *x = k as f32 - 15.5;
    }
    x[31] = 127.0;
    let w: Vec<u8> = f16::from_f32(1.0).to_le_bytes().into_iter().chain([1; 32]).collect();
    let want: f32 = x.iter().map(|x| x.round_ties_even()).sum();
    for isa in Isa::all() {
        let got = Matrix::new(BlockType::Q8_0, 1, 32, &w).times(isa, &x);
        assert_eq!(got, [want], "{}", isa.name());
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let shape = |rows, cols| Shape::new(BlockType::Q4_K, rows, cols);
    assert!(matches!(shape(4, 128), Err(PackError::Shape { .. })));
    assert!(matches!(shape(usize::MAX, 256), Err(PackError::Shape { .. })));
    let shape = shape(4, 256).unwrap();
    let mut packed = Aligned::new(shape.packed_bytes() + 64);
    let short = matmul::pack(shape, &[0; 143], &mut packed.get_mut()[..shape.packed_bytes()]);
    assert!(matches!(short, Err(PackError::Length { got: 143, want: 576, .. })));
    let long = matmul::pack(shape, &[0; 576], packed.get_mut());
    assert!(matches!(long, Err(PackError::Length { .. })));
    let view = Packed::from_bytes(shape, &packed.get()[1..][..shape.packed_bytes()]);
    assert!(matches!(view, Err(PackError::Alignment)));
    assert!(Activations::over(&mut packed.get_mut()[..47], 1, 32).is_err());
}

#[test]
fn nothing_multiplies_to_nothing() {
    for isa in Isa::all() {
        let w = Matrix::new(BlockType::Q8_0, 0, 64, &[]);
        assert_eq!(w.times(isa, &[1.0; 128]), [0.0; 0]);
        let w = Matrix::new(BlockType::Q8_0, 3, 32, &[0; 3 * 34]);
        assert_eq!(w.times(isa, &[]), [0.0; 0]);
    }
}

#[test]
fn kernels_that_are_not_here_are_named_in_the_error() {
    let error = Isa::named("abacus").unwrap_err().to_string();
    assert!(error.contains("abacus") && error.contains("portable"), "{error}");
}
