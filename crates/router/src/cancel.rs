//! Giving back what a request that ended early would leave behind on a prefill instance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use plumb_protocol::body::Body;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::instances::Instance;
use crate::metrics::Meters;
use crate::upstream::{Answer, Ask};

/// For an instance to take a lease back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The work that goes on after its request has ended: the runtime may not end before it.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    tasks: Arc<Mutex<JoinSet<()>>>,
    meters: Meters,
}

/// Blocks that wait on a prefill instance for a decode instance. Dropped while it is still armed,
/// it tells the prefill instance that nobody will come.
#[derive(Debug)]
pub(crate) struct Lease {
    instance: Arc<Instance>,
    request_id: Option<String>,
    headers: HeaderMap,
    cancel: Cancel,
}

impl Lease {
    pub(crate) fn new(
        cancel: &Cancel,
        instance: Arc<Instance>,
        request_id: String,
        headers: HeaderMap,
    ) -> Self {
        Self { instance, request_id: Some(request_id), headers, cancel: cancel.clone() }
    }

    /// Decode has taken the request: the blocks are its business now.
    pub(crate) fn taken(mut self) {
        self.request_id = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(id) = self.request_id.take() else { return };
        let (instance, meters) = (self.instance.clone(), self.cancel.meters.clone());
        let headers = std::mem::take(&mut self.headers);
        self.cancel.spawn(async move {
            let end = release(&instance, &id, headers).await;
            debug!(url = instance.url, lease = id, end, "lease of a request that ended early");
            meters.lease(end);
        });
    }
}

impl Cancel {
    pub(crate) fn new(meters: Meters) -> Self {
        Self { tasks: Arc::default(), meters }
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits for the work that is left, within the time that each piece has.
    pub(crate) async fn finish(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(2 * RELEASE_TIMEOUT, all).await.is_err() {
            warn!("some leases could not be given back in time: they end by themselves");
        }
    }
}

/// Asks the instance to free the blocks, and says how it ended: `released`, `gone` (decode had
/// pulled them already), or `stranded` (vLLM has no such call: the blocks stay until the lease ends).
async fn release(instance: &Instance, id: &str, headers: HeaderMap) -> &'static str {
    let path = format!("/kv/leases/{}", escaped(id));
    let ask = Ask { method: Method::DELETE, path, headers, body: Bytes::new() };
    match instance.upstream.ask(&ask, RELEASE_TIMEOUT).await {
        Ok(answer) if answer.status.is_success() => "released",
        Ok(answer) if is_gone(&answer) => "gone",
        _ => "stranded",
    }
}

/// Our workers answer a lease that they do not hold with an error that names it; servers without
/// such a call answer 404 or 405 about the path.
fn is_gone(answer: &Answer) -> bool {
    let names_lease = || {
        let body = Body::parse(&answer.body).ok()?;
        let error = Body::parse(body.get("error")?.get().as_bytes()).ok()?;
        Some(error.string("param")? == "remote_request_id")
    };
    answer.status == StatusCode::NOT_FOUND && names_lease() == Some(true)
}

/// An id as one segment of a path.
fn escaped(id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
