//! Each in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Policy;
use crate::instances::Instance;

#[derive(Debug, Default)]
pub(super) struct RoundRobin(AtomicUsize);

impl Policy for RoundRobin {
    fn choose(&self, _body: &[u8], candidates: &[Arc<Instance>]) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed) % candidates.len()
    }
}
