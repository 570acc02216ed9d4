//! Arithmetic on slices, in an order that depends on nothing but the shapes.
//!
//! Each kernel but the products is written once: for single elements, of which the compiler makes one
//! version an instruction set (`level`), or over sixteen floats where lanes meet (`wide`).
//! Floating-point operations are never reordered, so that all versions give the same bits.

pub(crate) mod attention;
pub(crate) mod exp;
pub(crate) mod gate;
pub(crate) mod level;
pub mod matmul;
pub(crate) mod norm;
pub(crate) mod rotate;
pub(crate) mod wide;
