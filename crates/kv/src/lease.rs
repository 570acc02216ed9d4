//! Leases: blocks kept for a peer that is going to pull them, for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{Block, MAX_REQUEST_ID};

/// How long blocks wait without a sign of life from the peer, as vLLM's.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Leases at a time.
const MAX_LEASES: usize = 16_384;
/// Ended leases that are remembered, to tell a replay from a guess.
const MAX_ENDED: usize = 4_096;

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    /// Never granted, or ended long ago.
    #[error("no such lease was granted")]
    Unknown,
    /// Released or expired.
    #[error("the lease has ended: its blocks were released, or it expired")]
    Ended,
}

/// Why a lease was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Names are used once.
    #[error("a lease of this remote_request_id exists or existed; use a new one")]
    Taken,
    /// Over [`MAX_REQUEST_ID`].
    #[error("a remote_request_id may have {MAX_REQUEST_ID} bytes")]
    LongId,
    /// Too many leases wait.
    #[error("{MAX_LEASES} leases wait already")]
    TooMany,
    /// A block lacks layers: see [`crate::Pulled::whole`].
    #[error("a block that was pulled without the layers outside their window cannot be passed on")]
    Partial,
}

/// Leases and the blocks under them, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Live leases.
    pub leases: usize,
    /// Different blocks under them; they are among the pool's used ones.
    pub blocks: usize,
    /// Since the start.
    pub granted_total: u64,
    /// Ended by the peer's notification or by `DELETE`.
    pub released_total: u64,
    /// Ended by time.
    pub expired_total: u64,
}

/// The leases of one instance. Time is passed in, so that tests need not wait for it.
#[derive(Debug)]
pub struct Leases {
    ttl: Duration,
    table: Mutex<Table>,
    granted: AtomicU64,
    released: AtomicU64,
    expired: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<String, Lease>,
    ended: HashSet<String>,
    /// The same names, oldest first.
    ended_order: VecDeque<String>,
}

#[derive(Debug)]
struct Lease {
    blocks: Arc<[Block]>,
    ends: Instant,
}

impl Table {
    fn end(&mut self, id: &str) -> Option<Lease> {
        let lease = self.live.remove(id)?;
        if self.ended_order.len() == MAX_ENDED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended.insert(id.to_owned());
        self.ended_order.push_back(id.to_owned());
        Some(lease)
    }

    fn absent(&self, id: &str) -> NoLease {
        if self.ended.contains(id) { NoLease::Ended } else { NoLease::Unknown }
    }

    fn live(&mut self, id: &str, now: Instant) -> Result<&mut Lease, NoLease> {
        // One that is over but not yet swept is over.
        if self.live.get(id).is_some_and(|lease| lease.ends <= now) {
            return Err(NoLease::Ended);
        }
        let absent = self.absent(id);
        self.live.get_mut(id).ok_or(absent)
    }
}

impl Leases {
    /// No leases yet; each will last `ttl` after its last sign of life.
    #[must_use]
    pub fn new(ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            ttl,
            table: Mutex::default(),
            granted: AtomicU64::new(0),
            released: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        })
    }

    /// How long a lease lasts after its last sign of life.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Keeps `blocks`, the sequence's blocks from its first on, for whoever names `id`, which should
    /// come from [`crate::remote_request_id`].
    ///
    /// # Errors
    /// [`GrantError`]; the blocks are dropped then.
    pub fn grant(&self, id: &str, blocks: Vec<Block>, now: Instant) -> Result<(), GrantError> {
        if id.len() > MAX_REQUEST_ID {
            return Err(GrantError::LongId);
        }
        if blocks.iter().any(Block::is_partial) {
            return Err(GrantError::Partial);
        }
        let mut table = self.table.lock();
        if table.live.len() >= MAX_LEASES {
            return Err(GrantError::TooMany);
        }
        if table.live.contains_key(id) || table.ended.contains(id) {
            return Err(GrantError::Taken);
        }
        table.live.insert(id.to_owned(), Lease { blocks: blocks.into(), ends: now + self.ttl });
        self.granted.fetch_add(1, Relaxed);
        Ok(())
    }

    /// A sign of life: the lease lasts its whole time from `now` on.
    ///
    /// # Errors
    /// [`NoLease`].
    pub fn extend(&self, id: &str, now: Instant) -> Result<(), NoLease> {
        self.pin(id, now).map(drop)
    }

    /// The blocks of a live lease, which stay what they are while the answer is held, also if the
    /// lease ends meanwhile. Counts as a sign of life.
    ///
    /// # Errors
    /// [`NoLease`].
    pub fn pin(&self, id: &str, now: Instant) -> Result<Arc<[Block]>, NoLease> {
        let mut table = self.table.lock();
        let lease = table.live(id, now)?;
        lease.ends = lease.ends.max(now + self.ttl);
        Ok(Arc::clone(&lease.blocks))
    }

    /// Ends a lease: the peer has what it needs, or nobody is going to ask.
    ///
    /// # Errors
    /// [`NoLease`].
    pub fn release(&self, id: &str) -> Result<(), NoLease> {
        let mut table = self.table.lock();
        let absent = table.absent(id);
        let lease = table.end(id).ok_or(absent)?;
        self.released.fetch_add(1, Relaxed);
        drop(table);
        drop(lease);
        Ok(())
    }

    /// Ends the leases whose time is over; answers how many.
    pub fn expire(&self, now: Instant) -> usize {
        let mut table = self.table.lock();
        let over: Vec<String> = table
            .live
            .iter()
            .filter(|(_, lease)| lease.ends <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let leases: Vec<Lease> = over.iter().filter_map(|id| table.end(id)).collect();
        drop(table);
        self.expired.fetch_add(leases.len() as u64, Relaxed);
        leases.len()
    }

    /// When the next lease ends if nobody shows a sign of life.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.table.lock().live.values().map(|lease| lease.ends).min()
    }

    /// Leases and the blocks under them.
    #[must_use]
    pub fn counts(&self) -> LeaseCounts {
        let table = self.table.lock();
        let blocks: HashSet<_> =
            table.live.values().flat_map(|lease| lease.blocks.iter().map(Block::id)).collect();
        LeaseCounts {
            leases: table.live.len(),
            blocks: blocks.len(),
            granted_total: self.granted.load(Relaxed),
            released_total: self.released.load(Relaxed),
            expired_total: self.expired.load(Relaxed),
        }
    }
}
