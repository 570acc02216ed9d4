//! The one with the fewest requests in flight; equals in turn, so that an idle fleet is not
//! served by its first instance alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Policy;
use crate::instances::Instance;

#[derive(Debug, Default)]
pub(super) struct LeastLoaded(AtomicUsize);

impl Policy for LeastLoaded {
    fn choose(&self, _body: &[u8], candidates: &[Arc<Instance>]) -> usize {
        let first = self.0.fetch_add(1, Ordering::Relaxed);
        let count = candidates.len();
        (0..count)
            .map(|i| (first.wrapping_add(i)) % count)
            .min_by_key(|&i| candidates[i].in_flight())
            .unwrap_or(0)
    }
}
