//! Places for connections, and who gives one up when all are taken: the one that idles longest.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Whoever was asked for its place may just have become busy: then another is asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A seat's turn while a request is being answered on it.
const BUSY: u64 = 0;

#[derive(Debug, Clone)]
pub(crate) struct Seats {
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

/// Those that wait for a request, by the turn in which they began to.
#[derive(Debug, Default)]
struct Idle {
    turns: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    idle: Arc<Mutex<Idle>>,
    leave: Arc<Notify>,
    /// Changed only while `idle` is locked.
    turn: AtomicU64,
    _place: OwnedSemaphorePermit,
}

/// A request that is being answered on a seat, which nobody takes away meanwhile.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Seat>);

impl Seats {
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), idle: Arc::default() }
    }

    /// A place for one more, as soon as one is free or given up.
    pub(crate) async fn take(&self) -> Arc<Seat> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return self.seat(place);
        }
        loop {
            self.ask_the_idlest_to_leave();
            let place = timeout(ASK_AGAIN, self.places.clone().acquire_owned()).await;
            if let Ok(Ok(place)) = place {
                return self.seat(place);
            }
        }
    }

    fn ask_the_idlest_to_leave(&self) {
        if let Some((_, leave)) = self.idle.lock().waiting.pop_first() {
            leave.notify_one();
        }
    }

    fn seat(&self, place: OwnedSemaphorePermit) -> Arc<Seat> {
        let seat = Seat {
            idle: self.idle.clone(),
            leave: Arc::default(),
            turn: AtomicU64::new(BUSY),
            _place: place,
        };
        seat.wait();
        Arc::new(seat)
    }
}

impl Seat {
    /// Says that a request has come, until what it gives is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        let mut idle = self.idle.lock();
        idle.waiting.remove(&self.turn.swap(BUSY, Ordering::Relaxed));
        Busy(self.clone())
    }

    /// Ends once this connection, idle, is to make room for another.
    pub(crate) fn told_to_leave(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let seat = self.clone();
        async move {
            loop {
                seat.leave.notified().await;
                let _idle = seat.idle.lock();
                if seat.turn.load(Ordering::Relaxed) != BUSY {
                    return;
                }
            }
        }
    }

    fn wait(&self) {
        let mut idle = self.idle.lock();
        idle.turns += 1;
        let turn = idle.turns;
        self.turn.store(turn, Ordering::Relaxed);
        idle.waiting.insert(turn, self.leave.clone());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.idle.lock().waiting.remove(self.turn.get_mut());
    }
}
