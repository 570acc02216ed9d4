//! When what a walk of an allocator's records found to be live is believed.

use crate::{Range, Residency};

/// What changes under the walk is read again, so often in all.
pub(crate) const TRIES: usize = 3;
/// So much may be about to be given or freed while it is read, or 1 % of what is live.
pub(crate) const UNSETTLED: u64 = 64 << 10;

/// What is live of each range, where it is believed: no more than is resident there (what lies in each
/// other would be counted twice), with little beside it whose records contradict each other.
pub(crate) fn believed(
    live: Vec<u64>,
    ranges: &[Range],
    unsettled: u64,
    residency: &Residency,
) -> Option<Vec<u64>> {
    let fits = |(live, range): (&u64, &Range)| *live <= residency.bytes_in(range);
    let sound = live.iter().zip(ranges).all(fits);
    (sound && unsettled <= UNSETTLED.max(live.iter().sum::<u64>() / 100)).then_some(live)
}
