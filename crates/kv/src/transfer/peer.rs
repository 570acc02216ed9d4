//! One peer of the pulling side: a thread that does its pulls in turn, tells it what is not wanted
//! any more, and keeps waiting claims alive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plumb_region::Region;

use super::connection::{Connection, Order};
use super::message::Refusal;
use super::options::{PeerAddress, PullerOptions, Transport, Transports};
use super::plan::Plan;
use super::pulling::{Progress, PullError, Pulled};
use super::tally::PullCounts;
use crate::{Block, Pool};

/// After the peer could not be reached, what is only courtesy is left undone for this long.
const COURTESY_PAUSE: Duration = Duration::from_secs(1);
/// Claims in one heartbeat, so that it fits a control frame.
const HEARTBEAT_CLAIMS: usize = 256;

pub(super) enum Job {
    /// A claim was made: it needs heartbeats.
    Claimed,
    Pull(PullJob),
    Release(LeaseName),
    Stop,
}

/// A lease of the peer, and which start of the peer granted it.
#[derive(Clone, Debug)]
pub(super) struct LeaseName {
    pub(super) engine_id: String,
    pub(super) request_id: String,
}

pub(super) struct PullJob {
    pub(super) lease: LeaseName,
    pub(super) first: u32,
    pub(super) progress: Arc<Progress>,
}

impl Drop for PullJob {
    fn drop(&mut self) {
        // Whoever waits must not wait for ever, whatever became of the thread.
        self.progress.end(Err(PullError::Stopped));
    }
}

/// What the peer's thread shares with the puller.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Live claims: remote request id to engine id.
    pub(super) claims: Mutex<HashMap<String, String>>,
    turn: Mutex<Turn>,
}

/// Whose turn it is.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    Nobody,
    Pull(Arc<Progress>),
    /// Nobody's any more.
    Stopped,
}

impl Side {
    /// Ends the pull under way; those in the queue will not get their turn.
    pub(super) fn stop(&self) {
        let before = std::mem::replace(&mut *self.turn.lock(), Turn::Stopped);
        if let Turn::Pull(progress) = before {
            progress.interrupt(PullError::Stopped);
        }
    }

    fn begin(&self, progress: &Arc<Progress>) -> Result<(), PullError> {
        let turn = &mut *self.turn.lock();
        if matches!(turn, Turn::Stopped) {
            return Err(PullError::Stopped);
        }
        *turn = Turn::Pull(Arc::clone(progress));
        Ok(())
    }

    fn finish(&self) {
        let turn = &mut *self.turn.lock();
        if matches!(turn, Turn::Pull(_)) {
            *turn = Turn::Nobody;
        }
    }
}

pub(super) struct Peer {
    pub(super) address: PeerAddress,
    pub(super) pool: Arc<Pool>,
    pub(super) options: Arc<PullerOptions>,
    pub(super) counts: Arc<PullCounts>,
    pub(super) side: Arc<Side>,
    pub(super) host: String,
    pub(super) connection: Option<Connection>,
    /// The pool of the engine with this id, or why there is none.
    pub(super) mapped: Option<(String, Result<Arc<Region>, String>)>,
    pub(super) pause_until: Instant,
}

impl Peer {
    /// Works until it is told to stop.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut last_beat = Instant::now();
        loop {
            let job = if self.side.claims.lock().is_empty() {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let due = last_beat + self.options.heartbeat;
                jobs.recv_timeout(due.saturating_duration_since(Instant::now()))
            };
            match job {
                Ok(Job::Claimed) => {}
                Ok(Job::Pull(job)) => self.work(&job),
                Ok(Job::Release(lease)) => self.release(&lease),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if last_beat.elapsed() >= self.options.heartbeat {
                self.heartbeat();
                last_beat = Instant::now();
            }
        }
    }

    fn work(&mut self, job: &PullJob) {
        let started = Instant::now();
        // What can stall is done before the blocks are taken: cancelling returns them at once.
        let engine_id = &job.lease.engine_id;
        let result = self
            .side
            .begin(&job.progress)
            .and_then(|()| self.with_connection(engine_id, None, |peer| peer.region().map(drop)))
            .and_then(|()| job.progress.start().ok_or(PullError::Cancelled))
            .and_then(|into| self.pull(job, into, started));
        self.side.finish();
        let by_copy = matches!(&result, Ok(pulled) if pulled.transport == Transport::Shm);
        match &result {
            Ok(pulled) => self.counts.pulled(pulled.transport, pulled.bytes),
            Err(error) => self.counts.fail(error),
        }
        let no_lease = matches!(
            &result,
            Err(PullError::Refused { refusal: Refusal::UnknownLease | Refusal::EndedLease, .. })
        );
        job.progress.end(result);
        // A copy was confirmed by the release.
        if !by_copy && !no_lease {
            self.release(&job.lease);
        }
        self.side.claims.lock().remove(&job.lease.request_id);
    }

    fn pull(
        &mut self,
        job: &PullJob,
        into: Vec<Block>,
        started: Instant,
    ) -> Result<Pulled, PullError> {
        let plan = Plan::new(self.pool.shape(), &self.pool.view(), job.first as usize, into.len());
        plan.partial.iter().for_each(|&block| into[block].mark_partial());
        let order = Order {
            request_id: &job.lease.request_id,
            first: job.first,
            into: &into,
            plan: &plan,
            checksum: self.options.checksum,
            deadline: started + self.options.timeouts.pull,
        };
        let transport =
            self.with_connection(&job.lease.engine_id, Some(&job.progress), |peer| {
                peer.transfer(&order, &job.progress)
            })?;
        let (bytes, whole) = (plan.bytes, plan.partial.is_empty());
        Ok(Pulled { blocks: into, bytes, transport, took: started.elapsed(), whole })
    }

    fn transfer(&mut self, order: &Order<'_>, progress: &Progress) -> Result<Transport, PullError> {
        let region = self.region()?;
        let Some(connection) = &mut self.connection else { return Err(PullError::Stopped) };
        match region {
            Some(region) => {
                connection.copy(order, &region, || progress.cancelled())?;
                Ok(Transport::Shm)
            }
            None => connection.receive(order).map(|()| Transport::Tcp),
        }
    }

    /// The peer's pool, mapped once for each start of the peer; `None` where TCP is to be taken.
    fn region(&mut self) -> Result<Option<Arc<Region>>, PullError> {
        if self.options.transports == Transports::Tcp {
            return Ok(None);
        }
        let Some(connection) = &mut self.connection else { return Err(PullError::Stopped) };
        let known = self.mapped.as_ref().filter(|(engine, _)| *engine == connection.engine_id);
        let region = match known {
            Some((_, region)) => region.clone(),
            None if self.host.is_empty() || connection.host != self.host => {
                Err("it is on another host".to_owned())
            }
            None => connection.map(&self.options)?.map(Arc::new),
        };
        if let (None, Err(why)) = (known, &region) {
            tracing::info!(peer = %self.address, %why, "KV comes by TCP");
        }
        self.mapped = Some((connection.engine_id.clone(), region.clone()));
        match region {
            Ok(region) => Ok(Some(region)),
            Err(_) if self.options.transports == Transports::Auto => Ok(None),
            Err(why) => Err(PullError::NoSharedMemory { peer: self.address.clone(), why }),
        }
    }

    /// Does `work` on a connection to the engine; a second time if a connection that had been idle
    /// turns out to be dead. A connection on which something failed is not used again.
    fn with_connection<T>(
        &mut self,
        engine_id: &str,
        progress: Option<&Progress>,
        mut work: impl FnMut(&mut Self) -> Result<T, PullError>,
    ) -> Result<T, PullError> {
        loop {
            let reused = self.connect(engine_id)?;
            let cancelled = |progress: Option<&Progress>| progress.is_some_and(Progress::cancelled);
            let watched = match (progress, &self.connection) {
                (Some(progress), Some(connection)) => progress.watch(connection.stream()),
                _ => Ok(()),
            };
            let result = match watched {
                Ok(()) if cancelled(progress) => Err(PullError::Cancelled),
                Ok(()) => work(self),
                Err(e) => Err(PullError::Lost { peer: self.address.clone(), what: e.to_string() }),
            };
            let error = match result {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !matches!(error, PullError::Refused { .. } | PullError::NoSharedMemory { .. }) {
                self.connection = None;
            }
            if cancelled(progress) {
                return Err(PullError::Cancelled);
            }
            if !(reused && matches!(error, PullError::Lost { .. })) {
                return Err(error);
            }
        }
    }

    /// True if there already was a connection to this engine.
    fn connect(&mut self, engine_id: &str) -> Result<bool, PullError> {
        if self.connection.as_ref().is_some_and(|c| c.engine_id == engine_id) {
            return Ok(true);
        }
        self.connection = None;
        let opened = Connection::open(&self.address, engine_id, &self.pool, &self.options);
        if let Err(PullError::Unreachable { .. } | PullError::Timeout { .. }) = &opened {
            self.pause_until = Instant::now() + COURTESY_PAUSE;
        }
        let connection = opened?;
        // What the engine before shared is of no more use, and may be large.
        self.mapped.take_if(|(engine, _)| engine != engine_id);
        self.connection = Some(connection);
        Ok(false)
    }

    fn release(&mut self, lease: &LeaseName) {
        if Instant::now() < self.pause_until {
            return;
        }
        let released = self.with_connection(&lease.engine_id, None, |peer| {
            let Some(connection) = &mut peer.connection else { return Err(PullError::Stopped) };
            connection.release(&lease.request_id)
        });
        if let Err(error) = released {
            // A peer that says no is there to be asked for the next one.
            if !error.is_answer() {
                self.pause_until = Instant::now() + COURTESY_PAUSE;
            }
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }

    fn heartbeat(&mut self) {
        if Instant::now() < self.pause_until {
            return;
        }
        let mut claims: HashMap<String, Vec<String>> = HashMap::new();
        for (request_id, engine_id) in &*self.side.claims.lock() {
            claims.entry(engine_id.clone()).or_default().push(request_id.clone());
        }
        for (engine_id, request_ids) in claims {
            for some in request_ids.chunks(HEARTBEAT_CLAIMS) {
                let beaten = self.with_connection(&engine_id, None, |peer| {
                    let Some(connection) = &mut peer.connection else {
                        return Err(PullError::Stopped);
                    };
                    connection.heartbeat(some.to_vec())
                });
                if let Err(error) = beaten {
                    tracing::debug!(%error, "heartbeat");
                    break;
                }
            }
        }
    }
}
