//! The instances that we were given: who is up, how busy, and whether it is still the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use http::Uri;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::upstream::Upstream;

/// Checks in a row that must time out before an instance is taken for dead: a busy one answers late.
const LATE_CHECKS: u32 = 3;

/// What an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Prefill,
    Decode,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its URL without a trailing slash, as it is shown.
    pub(crate) url: String,
    pub(crate) role: Role,
    pub(crate) upstream: Upstream,
    up: AtomicBool,
    late: AtomicU32,
    in_flight: AtomicUsize,
    engine_id: Mutex<Option<String>>,
    went_down: Notify,
}

/// A request that an instance is busy with.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Instance>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Instance {
    /// Down until it is seen up.
    pub(crate) fn new(uri: Uri, role: Role) -> Self {
        Self {
            url: uri.to_string().trim_end_matches('/').to_owned(),
            role,
            upstream: Upstream::new(&uri),
            up: AtomicBool::new(false),
            late: AtomicU32::new(0),
            in_flight: AtomicUsize::new(0),
            engine_id: Mutex::new(None),
            went_down: Notify::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    pub(crate) fn mark_up(&self) {
        self.late.store(0, Ordering::Relaxed);
        if !self.up.swap(true, Ordering::AcqRel) {
            info!(url = self.url, role = self.role.name(), "instance is up");
        }
    }

    /// It cannot be asked now; the next check that succeeds brings it back.
    pub(crate) fn mark_down(&self, why: &str) {
        if self.up.swap(false, Ordering::AcqRel) {
            warn!(url = self.url, role = self.role.name(), why, "instance is down");
            self.upstream.forget_connections();
            self.went_down.notify_one();
        }
    }

    /// A check was not answered in time.
    pub(crate) fn mark_late(&self) {
        if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_CHECKS {
            self.mark_down("health checks time out");
        }
    }

    /// Waits until it goes down, so that the next check need not wait for its time.
    pub(crate) async fn went_down(&self) {
        self.went_down.notified().await;
    }

    /// Remembers the engine that answered; another id at the same address is a restarted peer, and
    /// true is given back.
    pub(crate) fn saw_engine(&self, id: &str) -> bool {
        let mut known = self.engine_id.lock();
        if known.as_deref() == Some(id) {
            return false;
        }
        let restarted = known.replace(id.to_owned()).is_some();
        if restarted {
            info!(url = self.url, engine = id, "instance has restarted: a new engine answers");
        }
        restarted
    }
}
