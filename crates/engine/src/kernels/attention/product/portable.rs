//! Lanes without instructions of their own.

use super::Product;
use super::lanes::{Element, Lanes, Pair};
use super::strip;

const WIDTH: usize = 8;

impl Lanes for [i32; WIDTH] {
    const WIDTH: usize = WIDTH;
    type Pairs = [Pair<i16>; WIDTH];

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0; WIDTH]
    }

    #[inline(always)]
    unsafe fn repeat(at: *const Pair<i16>) -> Self::Pairs {
        // SAFETY: the caller's promise.
        [unsafe { at.read() }; WIDTH]
    }

    #[inline(always)]
    unsafe fn load_words(at: *const Pair<i16>) -> Self::Pairs {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self::Pairs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bytes(at: *const Pair<i8>) -> Self::Pairs {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[Pair<i8>; WIDTH]>().read_unaligned() };
        bytes.map(|pair| pair.map(i16::from))
    }

    #[inline(always)]
    unsafe fn add_products(self, a: Self::Pairs, b: Self::Pairs) -> Self {
        std::array::from_fn(|lane| {
            let product = |i: usize| i32::from(a[lane][i]) * i32::from(b[lane][i]);
            self[lane].wrapping_add(product(0)).wrapping_add(product(1))
        })
    }

    #[inline(always)]
    unsafe fn store(self, factor: f32, keep: Option<f32>, c: *mut f32) {
        let c = c.cast::<[f32; WIDTH]>();
        // SAFETY: the caller's promise.
        unsafe {
            let before =
                keep.map_or([0.0; WIDTH], |keep| c.read_unaligned().map(|before| before * keep));
            c.write_unaligned(std::array::from_fn(|lane| {
                factor.mul_add(self[lane] as f32, before[lane])
            }));
        }
    }
}

/// # Safety
/// The matrices are as long as the product says.
pub(super) unsafe fn multiply<E: Element>(product: &Product<'_, E>, c: *mut f32, c_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { strip::multiply::<E, [i32; WIDTH], 2, 2, 2>(product, c, c_stride) };
}
