//! Knowing what is in flight, and refusing what comes after the end was announced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use plumb_protocol::ApiError;
use tokio::sync::Notify;

use crate::Refusal;
use crate::held::hold;

#[derive(Debug, Clone, Default)]
pub(crate) struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    in_flight: AtomicUsize,
    finished: Notify,
}

/// One request, from its head to the last byte of its answer, or to its client's leaving.
#[derive(Debug)]
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.finished.notify_waiters();
        }
    }
}

impl Drain {
    /// Counts the application's requests, and refuses new ones once draining.
    pub(crate) fn watch(&self, app: Router) -> Router {
        app.layer(middleware::from_fn_with_state(self.clone(), pass))
    }

    pub(crate) fn begin(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn finished(&self) {
        loop {
            let notified = self.0.finished.notified();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn enter(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.0.clone())
    }
}

async fn pass(State(drain): State<Drain>, request: Request, next: Next) -> Response {
    // Whoever watches the drain reads the metrics while it lasts; they are not waited for.
    if request.uri().path() == "/metrics" {
        return next.run(request).await;
    }
    // Entered before it is asked whether the end has begun: so none slips in between.
    let in_flight = drain.enter();
    if drain.0.draining.load(Ordering::SeqCst) {
        return Refusal(ApiError::unavailable("This server is shutting down.", 1)).into_response();
    }
    hold(next.run(request).await, in_flight)
}
