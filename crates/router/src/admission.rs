//! Letting requests in: so many at once, so many waiting, and the rest told when to come back.

use std::sync::Arc;
use std::time::Duration;

use plumb_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    patience: Duration,
}

impl Admission {
    pub(crate) fn new(places: usize, queued: usize, patience: Duration) -> Self {
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Self { places: semaphore(places), queue: semaphore(queued), patience }
    }

    /// A place for one request, kept until it is dropped. With none free and no room to wait it is
    /// a 429; where waiting took too long, a 503.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let Ok(_waiting) = self.queue.try_acquire() else {
            return Err(ApiError::too_many("Too many requests are waiting already.", 1));
        };
        match timeout(self.patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(ApiError::unavailable("Every place stayed taken for too long.", 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bounded_queue_then_refusals() {
        let admission = Arc::new(Admission::new(1, 1, Duration::from_secs(5)));
        let place = admission.enter().await.unwrap();
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = admission.enter().await.unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (429, Some(1)));
        drop(place);
        waiting.await.unwrap().unwrap();

        let _place = admission.enter().await.unwrap();
        let tired = admission.enter().await.unwrap_err();
        assert_eq!((tired.status, tired.retry_after), (503, Some(1)));
    }
}
