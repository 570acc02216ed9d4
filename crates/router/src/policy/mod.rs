//! Choosing one instance among several that could all serve.

mod least_loaded;
mod round_robin;

use std::fmt::Debug;
use std::sync::Arc;

use crate::config::PolicyName;
use crate::instances::Instance;

/// A way of choosing. It sees the request's body, so that a policy may know prompts.
pub(crate) trait Policy: Debug + Send + Sync {
    /// The index of the chosen one; `candidates` is never empty.
    fn choose(&self, body: &[u8], candidates: &[Arc<Instance>]) -> usize;
}

pub(crate) fn new(name: PolicyName) -> Box<dyn Policy> {
    match name {
        PolicyName::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        PolicyName::LeastLoaded => Box::new(least_loaded::LeastLoaded::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::Role;

    fn instances() -> Vec<Arc<Instance>> {
        ["http://a:1", "http://b:1", "http://c:1"]
            .map(|url| Arc::new(Instance::new(url.parse().unwrap(), Role::Decode)))
            .into()
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let policy = new(PolicyName::RoundRobin);
        let all = instances();
        let chosen: Vec<usize> = (0..6).map(|_| policy.choose(b"", &all)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn least_loaded_takes_the_idlest_and_equals_in_turn() {
        let policy = new(PolicyName::LeastLoaded);
        let all = instances();
        let busy = [all[0].enter(), all[0].enter(), all[2].enter()];
        assert_eq!(policy.choose(b"", &all), 1);
        drop(busy);
        let mut chosen: Vec<usize> = (0..3).map(|_| policy.choose(b"", &all)).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 1, 2]);
    }
}
