//! Lanes without instructions of their own.

use super::Product;
use super::lanes::{Element, Lanes};
use super::strip;
use half::f16;

const WIDTH: usize = 8;

impl Lanes for [f32; WIDTH] {
    const WIDTH: usize = WIDTH;

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; WIDTH]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; WIDTH]
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_halves(at: *const f16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { at.cast::<[f16; WIDTH]>().read_unaligned() };
        halves.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bytes(at: *const i8) -> Self {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[i8; WIDTH]>().read_unaligned() };
        bytes.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self>().write_unaligned(self) };
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], self[lane]))
    }
}

/// # Safety
/// The matrices are as long as the product says.
pub(super) unsafe fn multiply<E: Element>(product: &Product<'_, E>, c: *mut f32, c_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { strip::multiply::<E, [f32; WIDTH], 2, 2, 2>(product, c, c_stride) };
}
