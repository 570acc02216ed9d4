//! Arithmetic on slices, in an order that depends on nothing but the shapes.

pub mod matmul;
