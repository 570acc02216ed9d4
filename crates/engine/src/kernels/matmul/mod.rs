//! Matrix products of packed weights: the bulk of the engine's arithmetic.
//!
//! ```text
//! GGUF tensor ──pack──▶ bytes in strips (format) ──Packed──┐
//! f32 rows ──Activations::quantize──▶ int8 panels ──Input──┴─matmul──▶ Output
//! ```
//!
//! Weights are repacked once, as plain bytes that can live in a shared region; activations are
//! quantised once a row, to int8 by blocks of 32, for all the matrices that read that row. A
//! **kernel** multiplies a strip of 16 weight rows by a few rows of activations; the number of rows
//! only decides how many results a pass over the strip yields. One output is always computed by the
//! same operations in the same order: for each block, ascending,
//!
//! ```text
//! acc = fma(f32(Σ code · q), scale · d, acc);  acc = fma(min, d · Σ q, acc)
//! ```
//!
//! where the sum of integers is exact. So GEMM, GEMV, every batch, every thread count and every
//! instruction set give the same bits.
//!
//! One folder an instruction set, chosen at run time ([`Isa`]); `portable` is the reference.
//! Kernels allocate nothing and take no locks.

mod activations;
mod drive;
mod format;
mod isa;
mod job;
mod pack;
mod packed;
mod portable;
mod source;

#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

pub use activations::{Activations, ActivationsError};
pub use drive::{Input, Output, matmul};
pub use format::{BLOCK, STRIP};
pub use isa::{Isa, IsaError};
pub use pack::pack;
pub use packed::{ALIGN, PackError, Packed, Shape};
