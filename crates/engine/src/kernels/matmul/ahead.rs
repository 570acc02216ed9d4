//! Telling the machine where a stream of weights goes on: by itself it sees that only within a page.

/// Rows of activations up to which memory is slower than arithmetic, so that asking pays.
pub(super) const STREAMING: usize = 2;
/// Bytes of a small page.
const PAGE: usize = 4096;
/// What is asked for: the middle of the page after the next.
const AHEAD: usize = 2 * PAGE + PAGE / 2;

/// Asks for one line of a page that the stream through `at` comes to soon, so that it is known in time
/// where that page lies. No more than one: the core fetches a stream better than it can be told to. And
/// always, not once a page: a branch that goes either way ends what was being fetched ahead.
#[inline(always)]
pub(super) fn ask(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let page = at.wrapping_sub(at.addr() % PAGE);
    // SAFETY: a hint, which may be given for any address; it reads nothing that the program sees.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(page.wrapping_add(AHEAD).cast()) };
}
