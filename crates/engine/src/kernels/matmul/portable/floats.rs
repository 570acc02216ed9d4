//! Float weights by float activations: one fused multiply-add a column, in ascending order.

use super::super::format::STRIP;
use super::super::job::FloatJob;
use super::Element;

/// # Safety
/// As [`super::super::job::FloatKernel`].
pub(super) unsafe fn kernel<const SIZE: usize, E: Element<SIZE>>(job: &FloatJob) {
    // SAFETY: the job's strip has 16 elements a column, its row one float.
    let (w, x) = unsafe {
        (
            std::slice::from_raw_parts(job.w, job.cols * STRIP * SIZE),
            std::slice::from_raw_parts(job.x, job.cols),
        )
    };
    let mut acc = [0f32; STRIP];
    for (column, &x) in w.as_chunks().0.chunks_exact(STRIP).zip(x) {
        for (acc, &element) in acc.iter_mut().zip(column) {
            *acc = E::value(element).mul_add(x, *acc);
        }
    }
    // SAFETY: the job's.
    unsafe { job.out.put(0, &acc) };
}

pub(super) fn row<const SIZE: usize, E: Element<SIZE>>(strip: &[u8], lane: usize, out: &mut [f32]) {
    for (column, out) in strip.as_chunks().0.chunks_exact(STRIP).zip(out) {
        *out = E::value(column[lane]);
    }
}
