//! A vector of floats of some instruction set, and what it is loaded from.

use crate::kernels::attention::narrow::narrow;
use crate::kernels::level::Level;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// What a product needs of a vector.
///
/// # Safety of its functions
/// The machine has the instructions; pointers are good for `WIDTH` elements, of any alignment.
pub(crate) trait Lanes: Copy {
    const WIDTH: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_halves(at: *const f16) -> Self;
    unsafe fn load_bytes(at: *const i8) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}

/// A number as the cache holds it.
pub(crate) trait Element: Copy + Default + 'static {
    /// Whether each token of a head has a factor by which its numbers are to be multiplied.
    const SCALED: bool;

    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(at: *const Self) -> L;

    /// Writes the numbers of one token of a head; returns their factor.
    fn narrow(level: Level, from: &[f32], to: &mut [Self]) -> f32;
}

impl Element for f16 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_halves(at) }
    }

    fn narrow(_: Level, from: &[f32], to: &mut [Self]) -> f32 {
        to.convert_from_f32_slice(from);
        1.0
    }
}

impl Element for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bytes(at) }
    }

    fn narrow(level: Level, from: &[f32], to: &mut [Self]) -> f32 {
        let mut factor = 0.0;
        narrow(level, from, to, &mut factor);
        factor
    }
}
