//! Sixteen floats without instructions of their own.

use super::{LANES, Wide};

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn halves(mut self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                self.0[lane] = f(self.0[lane], self.0[lane + half]);
            }
            half /= 2;
        }
        self.0[0]
    }
}

fn greater_of_bits(x: f32, y: f32) -> f32 {
    f32::from_bits(x.to_bits().max(y.to_bits()))
}

impl Wide for Portable {
    unsafe fn all(x: f32) -> Self {
        Self([x; LANES])
    }

    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }

    unsafe fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |x, y| x + y)
    }

    unsafe fn sub(self, other: Self) -> Self {
        self.with(other, |x, y| x - y)
    }

    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |x, y| x * y)
    }

    unsafe fn mul_add(self, factor: Self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], other.0[i])))
    }

    unsafe fn greater(self, other: Self) -> Self {
        self.with(other, |x, y| if x > y { x } else { y })
    }

    unsafe fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    unsafe fn greater_bits(self, other: Self) -> Self {
        self.with(other, greater_of_bits)
    }

    unsafe fn keep(self, lanes: u16, other: Self) -> Self {
        Self(std::array::from_fn(|i| if lanes >> i & 1 == 1 { self.0[i] } else { other.0[i] }))
    }

    unsafe fn raise(self, by: Self) -> Self {
        let raise = |x: f32, by: f32| f32::from_bits(x.to_bits().wrapping_add(by.to_bits() << 23));
        self.with(by, raise)
    }

    unsafe fn store_words(self, to: &mut [i16; LANES]) {
        *to = self.0.map(|x| x.to_bits() as i16);
    }

    unsafe fn sum(self) -> f32 {
        self.halves(|x, y| x + y)
    }

    unsafe fn greatest(self) -> f32 {
        self.halves(|x, y| if y > x { y } else { x })
    }

    unsafe fn greatest_bits(self) -> f32 {
        self.halves(greater_of_bits)
    }
}
