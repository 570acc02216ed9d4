//! One connection of the serving side.

use std::hash::Hasher;
use std::io::IoSlice;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::frame::Malformed;
use super::message::{Answer, Ask, Refusal, WIRE_VERSION};
use super::options::{ServerOptions, Transport, Transports};
use super::plan::{Plan, Span, frame_bytes};
use super::shared::{Doorway, Handed};
use super::tally::ServeCounts;
use super::wire::{Wire, WireError};
use crate::{Block, Leases, Pool};

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) pool: Arc<Pool>,
    pub(super) leases: Arc<Leases>,
    pub(super) options: ServerOptions,
    pub(super) boot: String,
    pub(super) counts: ServeCounts,
}

/// Says no; the connection may go on.
struct No(Refusal, String);

struct Conversation<'a> {
    host: &'a Host,
    wire: Wire,
    /// Blocks that the peer may be copying now, and the lease that they were granted by.
    pinned: Option<(String, Arc<[Block]>)>,
}

/// Talks with a peer until it leaves or breaks the rules. `welcomed` tells others that it has
/// introduced itself.
pub(super) fn serve(host: &Host, stream: TcpStream, welcomed: &AtomicBool) {
    let Ok(wire) = Wire::new(stream, host.options.timeouts.message) else { return };
    let mut conversation = Conversation { host, wire, pinned: None };
    if let Err(error) = conversation.run(welcomed) {
        conversation.end(&error);
    }
}

impl Conversation<'_> {
    fn run(&mut self, welcomed: &AtomicBool) -> Result<(), WireError> {
        let hello = self.wire.receive(Instant::now() + self.host.options.timeouts.hello)?;
        if let Err(No(refusal, message)) = self.greet(&hello) {
            return self.refuse(refusal, message);
        }
        welcomed.store(true, Relaxed);
        self.wire.send(&self.welcome())?;
        loop {
            let idle = Instant::now() + self.host.options.timeouts.idle;
            let ask = match self.wire.receive(idle) {
                // A peer without work comes back when it has some.
                Err(WireError::Idle) => return Ok(()),
                ask => ask?,
            };
            let answered = match ask {
                Ask::Hello { .. } => return Err(Malformed::Unexpected("a second hello").into()),
                Ask::Map => self.map()?,
                Ask::Pull { request_id, first, count, transport, checksum } => {
                    self.pull(&request_id, (first, count), transport, checksum)?
                }
                Ask::Release { request_id } => self.release(&request_id)?,
                Ask::Heartbeat { request_ids } => self.heartbeat(&request_ids)?,
            };
            if let Err(No(refusal, message)) = answered {
                self.refuse(refusal, message)?;
            }
        }
    }

    fn end(&mut self, error: &WireError) {
        let refusal = match error {
            WireError::Malformed(_) => Refusal::Malformed,
            WireError::Timeout | WireError::Idle => Refusal::Timeout,
            WireError::Closed | WireError::Io(_) => return,
        };
        self.refuse(refusal, error.to_string()).ok();
    }

    fn refuse(&mut self, refusal: Refusal, message: String) -> Result<(), WireError> {
        self.host.counts.refuse(refusal);
        self.wire.send(&Answer::Refused { refusal, message })
    }

    fn greet(&self, hello: &Ask) -> Result<(), No> {
        let Ask::Hello { wire_version, engine_id, identity, block_bytes } = hello else {
            return Err(No(Refusal::Malformed, "the first message must be a hello".to_owned()));
        };
        let options = &self.host.options;
        if *engine_id != options.engine_id {
            let ours = &options.engine_id;
            let message = format!("engine {engine_id} is gone; this is its successor {ours}");
            return Err(No(Refusal::StaleEngine, message));
        }
        let ours = self.host.pool.view().block_bytes as u64;
        let differ = |what, ours: u64, theirs: u64| {
            let message = format!("{what} differs: ours {ours}, the peer's {theirs}");
            No(Refusal::Identity, message)
        };
        if *wire_version != WIRE_VERSION {
            return Err(differ("wire version", WIRE_VERSION.into(), (*wire_version).into()));
        }
        if let Err(mismatch) = options.identity.check(identity) {
            return Err(No(Refusal::Identity, mismatch.to_string()));
        }
        if *block_bytes != ours {
            return Err(differ("bytes a block", ours, *block_bytes));
        }
        Ok(())
    }

    fn welcome(&self) -> Answer {
        Answer::Welcome {
            engine_id: self.host.options.engine_id.clone(),
            identity: self.host.options.identity.clone(),
            block_bytes: self.host.pool.view().block_bytes as u64,
            host: self.host.boot.clone(),
        }
    }

    fn shares_memory(&self) -> Result<(), No> {
        if self.host.options.transports != Transports::Tcp {
            return Ok(());
        }
        Err(No(Refusal::NoSharedMemory, "this instance serves by TCP only".to_owned()))
    }

    fn map(&mut self) -> Result<Result<(), No>, WireError> {
        if let Err(no) = self.shares_memory() {
            return Ok(Err(no));
        }
        let doorway = Doorway::open().map_err(WireError::Io)?;
        let region = self.host.pool.region();
        let (name, ticket) = (doorway.name.clone(), doorway.ticket.clone());
        self.wire.send(&Answer::Socket { name, ticket, bytes: region.len() as u64 })?;
        let deadline = Instant::now() + self.host.options.timeouts.message;
        let stranger = || self.host.counts.refuse(Refusal::NoSharedMemory);
        match doorway.hand_over(region, self.wire.stream(), deadline, stranger)? {
            Handed::Over | Handed::Unwanted => Ok(Ok(())),
            Handed::TimedOut => Err(WireError::Timeout),
        }
    }

    fn pull(
        &mut self,
        request_id: &str,
        (first, count): (u32, u32),
        transport: Transport,
        checksum: bool,
    ) -> Result<Result<(), No>, WireError> {
        if transport == Transport::Shm
            && let Err(no) = self.shares_memory()
        {
            return Ok(Err(no));
        }
        let lease = match self.host.leases.pin(request_id, Instant::now()) {
            Ok(lease) => lease,
            Err(no) => return Ok(Err(No(no.into(), no.to_string()))),
        };
        let (first, count) = (first as usize, count as usize);
        let Some(blocks) = first.checked_add(count).and_then(|end| lease.get(first..end)) else {
            let message = format!("{count} blocks from {first} on; {} are leased", lease.len());
            return Ok(Err(No(Refusal::OutOfRange, message)));
        };
        let view = self.host.pool.view();
        let plan = Plan::new(self.host.pool.shape(), &view, first, count);
        match transport {
            Transport::Shm => {
                let sum = checksum.then(|| sum(blocks, &plan.spans));
                let ids = blocks.iter().map(|block| block.id().0).collect();
                self.pinned = Some((request_id.to_owned(), Arc::clone(&lease)));
                self.wire.send(&Answer::Granted { bytes: plan.bytes, blocks: ids, sum })?;
            }
            Transport::Tcp => self.send_blocks(blocks, &plan, checksum)?,
        }
        self.host.counts.serve(transport, plan.bytes);
        Ok(Ok(()))
    }

    fn send_blocks(
        &mut self,
        blocks: &[Block],
        plan: &Plan,
        checksum: bool,
    ) -> Result<(), WireError> {
        let deadline = Instant::now() + self.host.options.timeouts.pull;
        let granted = Answer::Granted { bytes: plan.bytes, blocks: Vec::new(), sum: None };
        self.wire.send(&granted)?;
        let mut hash = checksum.then(XxHash3_64::new);
        for pieces in plan.frames() {
            let slices = pieces.iter().map(|piece| bytes_of(blocks, piece));
            if let Some(hash) = &mut hash {
                slices.clone().for_each(|slice| hash.write(slice));
            }
            let bytes = frame_bytes(&pieces);
            self.wire.send_data(bytes, slices.map(IoSlice::new), deadline)?;
        }
        self.wire.send(&Answer::Sum { sum: hash.map(|hash| hash.finish()) })
    }

    fn release(&mut self, request_id: &str) -> Result<Result<(), No>, WireError> {
        let pinned = self.pinned.take_if(|(id, _)| id == request_id).is_some();
        match self.host.leases.release(request_id) {
            // Ended meanwhile, but the peer's copy was taken while the blocks were pinned.
            Err(_) if pinned => {}
            Err(no) => return Ok(Err(No(no.into(), no.to_string()))),
            Ok(()) => {}
        }
        self.wire.send(&Answer::Released { pinned })?;
        Ok(Ok(()))
    }

    fn heartbeat(&mut self, request_ids: &[String]) -> Result<Result<(), No>, WireError> {
        let now = Instant::now();
        let extend = |id: &&String| self.host.leases.extend(id, now).is_err();
        let gone = request_ids.iter().filter(extend).cloned().collect();
        self.wire.send(&Answer::Alive { gone })?;
        Ok(Ok(()))
    }
}

/// The bytes of one piece of a lease's blocks.
fn bytes_of<'a>(blocks: &'a [Block], piece: &Span) -> &'a [u8] {
    let block = &blocks[piece.block];
    let base = block.pool().view().block(block.id());
    // SAFETY: the plan's spans lie within a block; the block is referenced while the slice lives, and
    // a leased block is not written by anybody.
    unsafe { std::slice::from_raw_parts(base.add(piece.bytes.start).as_ptr(), piece.bytes.len()) }
}

pub(super) fn sum(blocks: &[Block], spans: &[Span]) -> u64 {
    let mut hash = XxHash3_64::new();
    spans.iter().for_each(|span| hash.write(bytes_of(blocks, span)));
    hash.finish()
}
