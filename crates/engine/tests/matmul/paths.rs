//! One result has one value, whichever way it is computed.

use crate::support::{Aligned, Matrix, Random, bits, portable, tensor};
use plumb_engine::kernels::matmul::{self, Activations, Input, Isa, Output};
use plumb_gguf::BlockType;

/// Rows and columns (times the block length), odd on purpose.
const SHAPES: [(usize, usize); 6] = [(1, 1), (16, 2), (17, 3), (15, 1), (33, 5), (40, 9)];

#[test]
fn every_instruction_set_gives_the_reference_bits() {
    let mut random = Random(1);
    for ty in BlockType::ALL {
        for (rows, blocks) in SHAPES {
            let cols = blocks * ty.block_len();
            let w = Matrix::new(ty, rows, cols, &tensor(ty, rows, cols, &mut random));
            for batch in [1, 2, 3, 5, 12, 13, 33] {
                let x = random.floats(batch * cols);
                let want = bits(&w.times(portable(), &x));
                for isa in Isa::all() {
                    let got = bits(&w.times(isa, &x));
                    assert!(got == want, "{ty} {rows}x{cols}, {batch} rows, {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_row_alone_equals_the_row_in_any_batch() {
    let mut random = Random(2);
    for ty in BlockType::ALL {
        let (rows, cols) = (35, 2 * ty.block_len());
        let w = Matrix::new(ty, rows, cols, &tensor(ty, rows, cols, &mut random));
        let x = random.floats(33 * cols);
        for isa in Isa::all() {
            let alone: Vec<f32> = x.chunks(cols).flat_map(|x| w.times(isa, x)).collect();
            for batch in 1..=33 {
                let got = w.times(isa, &x[..batch * cols]);
                let want = &alone[..batch * rows];
                assert_eq!(bits(&got), bits(want), "{ty}, {batch} rows, {}", isa.name());
            }
        }
    }
}

#[test]
fn strips_computed_apart_equal_the_whole() {
    let mut random = Random(3);
    let (rows, cols, batch, stride) = (70, 96, 5, 81);
    let w =
        Matrix::new(BlockType::Q4_1, rows, cols, &tensor(BlockType::Q4_1, rows, cols, &mut random));
    let x = random.floats(batch * cols);
    for isa in Isa::all() {
        let want = w.times(isa, &x);
        let mut buffer = Aligned::new(Activations::bytes(batch, cols));
        let mut blocks = Activations::over(buffer.get_mut(), batch, cols).unwrap();
        blocks.quantize(isa, &x);
        let input = Input { floats: &x, blocks };
        let mut out = vec![7.0; (batch - 1) * stride + rows];
        let output = Output::new(&mut out, stride);
        for strips in [3..5, 0..1, 1..3] {
            // SAFETY: one thread.
            unsafe { matmul::matmul(isa, &w.view(), &input, &output, strips) };
        }
        for (out, want) in out.chunks(stride).zip(want.chunks(rows)) {
            assert_eq!(out[..rows], *want);
            assert!(out[rows..].iter().all(|&x| x == 7.0), "{} wrote past a row", isa.name());
        }
    }
}

#[test]
fn threads_that_share_strips_give_the_same_bits() {
    let mut random = Random(4);
    let (rows, cols, batch) = (150, 256, 14);
    let w =
        Matrix::new(BlockType::Q4_K, rows, cols, &tensor(BlockType::Q4_K, rows, cols, &mut random));
    let x = random.floats(batch * cols);
    let isa = Isa::best();
    let mut buffer = Aligned::new(Activations::bytes(batch, cols));
    let mut blocks = Activations::over(buffer.get_mut(), batch, cols).unwrap();
    blocks.quantize(isa, &x);
    let input = Input { floats: &x, blocks };
    let mut out = vec![0.0; batch * rows];
    let output = Output::new(&mut out, rows);
    std::thread::scope(|scope| {
        for strips in [0..4, 4..5, 5..10] {
            let (w, input, output) = (w.view(), &input, &output);
            // SAFETY: strips are disjoint; nobody writes the activations.
            scope.spawn(move || unsafe { matmul::matmul(isa, &w, input, output, strips) });
        }
    });
    assert_eq!(bits(&out), bits(&w.times(isa, &x)));
}
