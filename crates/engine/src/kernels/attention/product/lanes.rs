//! A vector of sums of some instruction set, and the pairs whose products are added to it.

/// Two numbers whose products one instruction adds to a sum.
pub(crate) type Pair<E> = [E; 2];

/// What a product needs of a vector of 32-bit sums. Sums wrap, as only sums that nobody reads do.
///
/// # Safety of its functions
/// The machine has the instructions; pointers are good for `WIDTH` elements, or for one that is
/// repeated, of any alignment.
pub(crate) trait Lanes: Copy {
    const WIDTH: usize;
    /// A pair of 16-bit numbers a lane.
    type Pairs: Copy;
    unsafe fn zero() -> Self;
    /// The same pair in all lanes.
    unsafe fn repeat(at: *const Pair<i16>) -> Self::Pairs;
    unsafe fn load_words(at: *const Pair<i16>) -> Self::Pairs;
    unsafe fn load_bytes(at: *const Pair<i8>) -> Self::Pairs;
    unsafe fn add_products(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    /// `keep * c + factor * self`, rounded after the first product, after the conversion and after the
    /// sum; without `keep`, the latter alone.
    unsafe fn store(self, factor: f32, keep: Option<f32>, c: *mut f32);
}

/// A number as the cache holds it: a token of a head has a factor by which its numbers are to be
/// multiplied.
pub(crate) trait Element: Copy + Default + 'static {
    /// Magnitudes are at most this.
    const GREATEST: i16;

    /// A number of at most [`GREATEST`](Self::GREATEST).
    fn of(number: i16) -> Self;

    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(at: *const Pair<Self>) -> L::Pairs;
}

impl Element for i16 {
    /// Fifteen bits, which leaves seventeen to the sum of what they are multiplied by: both sides are
    /// rounded about as finely.
    const GREATEST: Self = 16_383;

    fn of(number: i16) -> Self {
        number
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const Pair<Self>) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { L::load_words(at) }
    }
}

impl Element for i8 {
    const GREATEST: i16 = 127;

    fn of(number: i16) -> Self {
        number as Self
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const Pair<Self>) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { L::load_bytes(at) }
    }
}
