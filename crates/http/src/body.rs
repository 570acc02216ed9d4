//! Reading a request's body within bounds of bytes, memory and time.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use plumb_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::Limits;

/// Bodies slower than this are cut off, once [`Limits::body_timeout`] is over.
const SLOWEST_BYTES_PER_S: usize = 64 << 10;
/// Memory is accounted in pieces of this size.
const PIECE: usize = 1 << 10;
/// How long a body that is refused is read on and thrown away: a client that is still sending
/// would otherwise see a reset connection instead of the refusal.
const LINGER: Duration = Duration::from_secs(5);

/// Reads bodies; its clones share one budget of memory.
#[derive(Debug, Clone)]
pub struct BodyReader {
    max_bytes: usize,
    timeout: Duration,
    budget: Arc<Semaphore>,
}

/// A body, and its share of the budget for as long as it lives.
#[derive(Debug)]
pub struct ReadBody {
    bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Deref for ReadBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReadBody {
    /// The bytes, shared without a copy; the budget counts them for as long as `self` lives.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl BodyReader {
    /// A reader with these limits.
    pub fn new(limits: &Limits) -> Self {
        let pieces = (limits.max_buffered_bytes / PIECE).min(Semaphore::MAX_PERMITS);
        Self {
            max_bytes: limits.max_body_bytes,
            timeout: limits.body_timeout,
            budget: Arc::new(Semaphore::new(pieces)),
        }
    }

    /// Reads a whole body. Too large is 413, too slow 408, cut off 400, no memory for it 503.
    pub async fn read(&self, mut body: Body) -> Result<ReadBody, ApiError> {
        let result = self.read_bounded(&mut body).await;
        if matches!(&result, Err(error) if error.status == 413 || error.status == 503) {
            // The refusal itself need not wait for that: a client may never send what it announced.
            tokio::spawn(timeout(LINGER, discard(body)));
        }
        result
    }

    async fn read_bounded(&self, body: &mut Body) -> Result<ReadBody, ApiError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.max_bytes {
            return Err(self.too_large());
        }
        let start = Instant::now();
        let mut bytes = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        loop {
            let extra = Duration::from_secs((bytes.len() / SLOWEST_BYTES_PER_S) as u64);
            let frame = timeout_at(start + self.timeout + extra, body.frame())
                .await
                .map_err(|_| ApiError::new(408, "The body took too long to arrive."))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| ApiError::bad_request("The body was cut off."))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.max_bytes {
                return Err(self.too_large());
            }
            self.charge(&mut share, bytes.len() + data.len())?;
            if bytes.is_empty() {
                bytes.reserve(announced.max(data.len()).min(1 << 20));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(ReadBody { bytes: bytes.freeze(), _share: share })
    }

    /// Grows a body's share of the budget to `bytes`.
    fn charge(
        &self,
        share: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.div_ceil(PIECE).saturating_sub(held)).unwrap_or(u32::MAX);
        let permit = self.budget.clone().try_acquire_many_owned(more).map_err(|_| {
            ApiError::unavailable("Too many bytes of requests are held already.", 1)
        })?;
        match share {
            Some(share) => share.merge(permit),
            None => *share = Some(permit),
        }
        Ok(())
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(413, format!("The body is larger than {} bytes.", self.max_bytes))
    }
}

async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
