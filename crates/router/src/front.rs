//! The router's state, shared by every request.

use std::fmt::{self, Debug};
use std::sync::Arc;

use http::Uri;
use plumb_http::BodyReader;

use crate::admission::Admission;
use crate::cancel::Cancel;
use crate::config::Options;
use crate::instances::{Instance, Role};
use crate::metrics::Meters;
use crate::policy::{self, Policy};

/// What the process that runs the router knows and the router publishes on its metrics page.
pub struct Observed {
    /// Resident bytes of this process by layer, for `plumb_memory_bytes{layer}`.
    pub memory_bytes: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
}

impl Default for Observed {
    fn default() -> Self {
        Self { memory_bytes: Box::new(Vec::new) }
    }
}

impl Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) prefill: Vec<Arc<Instance>>,
    pub(crate) decode: Vec<Arc<Instance>>,
    pub(crate) prefill_policy: Box<dyn Policy>,
    pub(crate) decode_policy: Box<dyn Policy>,
    pub(crate) admission: Admission,
    pub(crate) reader: BodyReader,
    pub(crate) meters: Meters,
    pub(crate) cancel: Cancel,
    pub(crate) options: Options,
}

impl Front {
    pub(crate) fn new(options: Options, observed: Observed) -> Self {
        let prefill = instances(&options.prefill, Role::Prefill);
        let decode = instances(&options.decode, Role::Decode);
        let meters = Meters::new(prefill.iter().chain(&decode), observed);
        Self {
            prefill,
            decode,
            prefill_policy: policy::new(options.policy),
            decode_policy: policy::new(options.policy),
            admission: Admission::new(
                options.max_in_flight,
                options.max_queued,
                options.queue_timeout,
            ),
            reader: BodyReader::new(&options.limits),
            cancel: Cancel::new(meters.clone()),
            meters,
            options,
        }
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.prefill.iter().chain(&self.decode)
    }
}

fn instances(uris: &[Uri], role: Role) -> Vec<Arc<Instance>> {
    uris.iter().map(|uri| Arc::new(Instance::new(uri.clone(), role))).collect()
}
