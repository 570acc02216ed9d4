//! The pulling side: claims on a peer's leases, and their pulls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::options::{PeerAddress, PullerOptions};
use super::peer::{Job, LeaseName, Peer, PullJob, Side};
use super::pulling::{Progress, PullError, Pulling};
use super::shared;
use super::tally::PullCounts;
use crate::{Block, Pool};

/// A lease at a peer, as `kv_transfer_params` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// `remote_host` and `remote_port`.
    pub peer: PeerAddress,
    /// `remote_engine_id`.
    pub engine_id: String,
    /// `remote_request_id`.
    pub request_id: String,
}

/// Pulls blocks from peers into one pool; each peer has a thread of its own, started when it is first
/// needed. Dropping it ends every pull and waits until the peers were told of what they need not keep:
/// at most a few seconds, where a peer hangs.
#[derive(Debug)]
pub struct Puller {
    pool: Arc<Pool>,
    options: Arc<PullerOptions>,
    counts: Arc<PullCounts>,
    host: String,
    peers: Mutex<HashMap<PeerAddress, Worker>>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    side: Arc<Side>,
    thread: JoinHandle<()>,
}

/// Blocks at a peer that we mean to pull: kept alive by heartbeats. Dropping it tells the peer that
/// nobody wants them.
#[derive(Debug)]
#[must_use = "a claim that is dropped is given up"]
pub struct Claim {
    pool: Arc<Pool>,
    jobs: Sender<Job>,
    side: Arc<Side>,
    lease: LeaseName,
    given_up: bool,
}

impl Puller {
    /// Pulls into `pool`.
    #[must_use]
    pub fn new(pool: Arc<Pool>, options: PullerOptions) -> Self {
        Self {
            pool,
            options: Arc::new(options),
            counts: Arc::default(),
            host: shared::host(),
            peers: Mutex::default(),
        }
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &PullCounts {
        &self.counts
    }

    /// Claims a lease at a peer; nothing is sent yet but, while it waits, heartbeats.
    ///
    /// # Errors
    /// [`PullError::NotAllowed`] for a peer that we were not given.
    pub fn claim(&self, remote: Remote) -> Result<Claim, PullError> {
        if !self.options.peers.contains(&remote.peer) {
            let error = PullError::NotAllowed(remote.peer);
            self.counts.fail(&error);
            return Err(error);
        }
        let mut peers = self.peers.lock();
        let worker = match peers.entry(remote.peer.clone()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(self.hire(&remote.peer)?),
        };
        let lease = LeaseName { engine_id: remote.engine_id, request_id: remote.request_id };
        worker.side.claims.lock().insert(lease.request_id.clone(), lease.engine_id.clone());
        let (jobs, side) = (worker.jobs.clone(), Arc::clone(&worker.side));
        jobs.send(Job::Claimed).map_err(|_| PullError::Stopped)?;
        Ok(Claim { pool: Arc::clone(&self.pool), jobs, side, lease, given_up: false })
    }

    fn hire(&self, address: &PeerAddress) -> Result<Worker, PullError> {
        let (jobs, queue) = channel();
        let side = Arc::new(Side::default());
        let peer = Peer {
            address: address.clone(),
            pool: Arc::clone(&self.pool),
            options: Arc::clone(&self.options),
            counts: Arc::clone(&self.counts),
            side: Arc::clone(&side),
            host: self.host.clone(),
            connection: None,
            mapped: None,
            pause_until: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("kv-pull".to_owned())
            .spawn(move || peer.run(&queue))
            .map_err(|source| PullError::Unreachable { peer: address.clone(), source })?;
        Ok(Worker { jobs, side, thread })
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        for (_, worker) in self.peers.get_mut().drain() {
            worker.side.stop();
            worker.jobs.send(Job::Stop).ok();
            worker.thread.join().ok();
        }
    }
}

impl Claim {
    /// Pulls the lease's blocks `first..first + into.len()` into `into`, for a sequence that computes
    /// from the token after them on.
    ///
    /// Nobody may read or write these blocks until the pull has ended, also through clones. Pulls
    /// from one peer are done in turn, on a thread of the puller's.
    ///
    /// # Panics
    /// If a block is not of the puller's pool.
    pub fn pull(mut self, first: u32, into: Vec<Block>) -> Pulling {
        let ours = |block: &Block| Arc::ptr_eq(block.pool(), &self.pool);
        assert!(into.iter().all(ours), "a pull fills blocks of the puller's own pool");
        self.given_up = true;
        let progress = Progress::new(into);
        let job = PullJob { lease: self.lease.clone(), first, progress: Arc::clone(&progress) };
        // If the thread is gone, the job is dropped, which ends the pull.
        self.jobs.send(Job::Pull(job)).ok();
        Pulling(progress)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.given_up {
            self.side.claims.lock().remove(&self.lease.request_id);
            self.jobs.send(Job::Release(self.lease.clone())).ok();
        }
    }
}
