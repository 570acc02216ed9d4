//! A vector of floats of some instruction set.

use half::f16;

/// What a product needs of a vector.
///
/// # Safety of its functions
/// The machine has the instructions; pointers are good for `WIDTH` elements, of any alignment.
pub(super) trait Lanes: Copy {
    const WIDTH: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_halves(at: *const f16) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}
