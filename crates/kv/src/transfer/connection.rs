//! The pulling side's connection to one peer.

use std::hash::Hasher;
use std::io::IoSliceMut;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Instant;

use plumb_region::Region;
use twox_hash::XxHash3_64;

use super::frame::Malformed;
use super::message::{Answer, Ask, Refusal, WIRE_VERSION};
use super::options::{PeerAddress, PullerOptions, Transport};
use super::plan::{Plan, Span, frame_bytes};
use super::pulling::PullError;
use super::serve::sum;
use super::shared;
use super::wire::{Wire, WireError};
use crate::{Block, Pool};

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    peer: PeerAddress,
    pub(super) engine_id: String,
    /// The peer's boot of its machine.
    pub(super) host: String,
}

/// What to pull, and where to.
pub(super) struct Order<'a> {
    pub(super) request_id: &'a str,
    pub(super) first: u32,
    pub(super) into: &'a [Block],
    pub(super) plan: &'a Plan,
    pub(super) checksum: bool,
    pub(super) deadline: Instant,
}

impl Connection {
    /// Connects to the peer as the engine that granted a lease, and compares who both are.
    pub(super) fn open(
        peer: &PeerAddress,
        engine_id: &str,
        pool: &Pool,
        options: &PullerOptions,
    ) -> Result<Self, PullError> {
        let unreachable = |source| PullError::Unreachable { peer: peer.clone(), source };
        let stream = connect(peer, options).map_err(unreachable)?;
        let wire = Wire::new(stream, options.timeouts.message).map_err(unreachable)?;
        let (engine_id, host) = (engine_id.to_owned(), String::new());
        let mut connection = Self { wire, peer: peer.clone(), engine_id, host };
        connection.greet(pool, options)?;
        Ok(connection)
    }

    fn greet(&mut self, pool: &Pool, options: &PullerOptions) -> Result<(), PullError> {
        let ours = pool.view().block_bytes as u64;
        let hello = Ask::Hello {
            wire_version: WIRE_VERSION,
            engine_id: self.engine_id.clone(),
            identity: options.identity.clone(),
            block_bytes: ours,
        };
        match self.ask(&hello)? {
            Answer::Welcome { engine_id, .. } if engine_id != self.engine_id => {
                let (peer, wanted) = (self.peer.clone(), self.engine_id.clone());
                Err(PullError::StaleEngine { peer, wanted, found: engine_id })
            }
            Answer::Welcome { identity, block_bytes, host, .. } => {
                let checked = options.identity.check(&identity);
                checked
                    .map_err(|m| PullError::Identity { peer: self.peer.clone(), mismatch: m })?;
                if block_bytes != ours {
                    return Err(self.broken(format!("blocks of {block_bytes} bytes, ours {ours}")));
                }
                self.host = host;
                Ok(())
            }
            other => Err(self.unexpected(&other)),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.wire.stream()
    }

    /// Maps the peer's pool. `Err` inside: it cannot be had, for this reason.
    pub(super) fn map(
        &mut self,
        options: &PullerOptions,
    ) -> Result<Result<Region, String>, PullError> {
        match self.ask(&Ask::Map) {
            Ok(Answer::Socket { name, ticket, bytes }) => {
                let region_name = format!("peer-kv-pool-{}", self.peer);
                let Ok(bytes) = usize::try_from(bytes) else {
                    return Err(self.broken(format!("a pool of {bytes} bytes")));
                };
                let timeout = options.timeouts.message;
                Ok(shared::fetch(&name, &ticket, &region_name, bytes, timeout))
            }
            Ok(other) => Err(self.unexpected(&other)),
            Err(PullError::Refused { refusal: Refusal::NoSharedMemory, message, .. }) => {
                Ok(Err(message))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies blocks out of the peer's mapped pool, and tells it when that is done.
    pub(super) fn copy(
        &mut self,
        order: &Order<'_>,
        theirs: &Region,
        cancelled: impl Fn() -> bool,
    ) -> Result<(), PullError> {
        let (blocks, announced) = self.grant(order, Transport::Shm)?;
        if blocks.len() != order.into.len() {
            return Err(self.broken(format!("{} blocks granted", blocks.len())));
        }
        let Some(first) = order.into.first() else { return self.confirm(order.request_id) };
        let view = first.pool().view();
        let their_blocks = theirs.len() / view.block_bytes;
        if let Some(beyond) = blocks.iter().find(|&&id| id as usize >= their_blocks) {
            return Err(self.broken(format!("block {beyond} of a pool of {their_blocks}")));
        }
        for pieces in order.plan.frames() {
            for piece in pieces {
                let from = blocks[piece.block] as usize * view.block_bytes + piece.bytes.start;
                let to = view.block(order.into[piece.block].id());
                // SAFETY: source and target lie within their regions (checked above; the plan's
                // spans lie within a block), in different pools. The target block is ours alone; the
                // source is leased, which nobody writes, and if the peer were wrong about that,
                // `confirm` fails and the copy is not used.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        theirs.base().add(from).as_ptr(),
                        to.add(piece.bytes.start).as_ptr(),
                        piece.bytes.len(),
                    );
                }
            }
            if cancelled() {
                return Err(PullError::Cancelled);
            }
            if Instant::now() > order.deadline {
                return Err(PullError::Timeout { peer: self.peer.clone() });
            }
        }
        if order.checksum {
            self.compare(sum(order.into, &order.plan.spans), announced)?;
        }
        self.confirm(order.request_id)
    }

    /// Receives blocks over the connection.
    pub(super) fn receive(&mut self, order: &Order<'_>) -> Result<(), PullError> {
        self.grant(order, Transport::Tcp)?;
        let mut hash = order.checksum.then(XxHash3_64::new);
        for pieces in order.plan.frames() {
            let bytes = frame_bytes(&pieces);
            let mut slices: Vec<IoSliceMut<'_>> =
                pieces.iter().map(|piece| IoSliceMut::new(bytes_of(order.into, piece))).collect();
            let received = self.wire.receive_data(bytes, &mut slices, order.deadline);
            received.map_err(|error| self.failed(error))?;
            if let Some(hash) = &mut hash {
                pieces.iter().for_each(|piece| hash.write(bytes_of(order.into, piece)));
            }
        }
        match (self.answer(order.deadline)?, hash) {
            (Answer::Sum { sum }, Some(hash)) => self.compare(hash.finish(), sum),
            (Answer::Sum { .. }, None) => Ok(()),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    fn grant(
        &mut self,
        order: &Order<'_>,
        transport: Transport,
    ) -> Result<(Vec<u32>, Option<u64>), PullError> {
        let pull = Ask::Pull {
            request_id: order.request_id.to_owned(),
            first: order.first,
            count: order.into.len() as u32,
            transport,
            checksum: order.checksum,
        };
        match self.ask(&pull)? {
            Answer::Granted { bytes, blocks, sum } if bytes == order.plan.bytes => {
                Ok((blocks, sum))
            }
            Answer::Granted { bytes, .. } => {
                let due = order.plan.bytes;
                Err(self.broken(format!("{bytes} bytes granted where {due} are due")))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    fn compare(&self, found: u64, announced: Option<u64>) -> Result<(), PullError> {
        let announced = announced.ok_or_else(|| self.broken("no checksum".to_owned()))?;
        if found == announced {
            return Ok(());
        }
        Err(PullError::Checksum { peer: self.peer.clone(), found, announced })
    }

    /// After a copy: releases the lease, and learns whether the blocks were kept until now.
    fn confirm(&mut self, request_id: &str) -> Result<(), PullError> {
        if self.release(request_id)? {
            return Ok(());
        }
        Err(PullError::Unpinned { peer: self.peer.clone() })
    }

    /// Tells the peer that we have, or do not want, the blocks. True if they were pinned for us.
    pub(super) fn release(&mut self, request_id: &str) -> Result<bool, PullError> {
        match self.ask(&Ask::Release { request_id: request_id.to_owned() })? {
            Answer::Released { pinned } => Ok(pinned),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Tells the peer that these are still wanted; answers those that are gone.
    pub(super) fn heartbeat(&mut self, request_ids: Vec<String>) -> Result<Vec<String>, PullError> {
        match self.ask(&Ask::Heartbeat { request_ids })? {
            Answer::Alive { gone } => Ok(gone),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, PullError> {
        // A peer that closed an idle connection, or refused it at once, has said why.
        let sent = self.wire.send(ask);
        if let Err(error @ (WireError::Malformed(_) | WireError::Timeout)) = sent {
            return Err(self.failed(error));
        }
        self.answer(Instant::now() + self.wire.message())
    }

    fn answer(&mut self, deadline: Instant) -> Result<Answer, PullError> {
        match self.wire.receive(deadline).map_err(|error| self.failed(error))? {
            Answer::Refused { refusal, message } => {
                Err(PullError::Refused { peer: self.peer.clone(), refusal, message })
            }
            answer => Ok(answer),
        }
    }

    fn failed(&self, error: WireError) -> PullError {
        let peer = self.peer.clone();
        match error {
            WireError::Timeout | WireError::Idle => PullError::Timeout { peer },
            WireError::Malformed(malformed) => self.broken(malformed.to_string()),
            WireError::Closed | WireError::Io(_) => {
                PullError::Lost { peer, what: error.to_string() }
            }
        }
    }

    fn unexpected(&self, answer: &Answer) -> PullError {
        tracing::debug!(?answer, peer = %self.peer, "unexpected answer");
        self.broken(Malformed::Unexpected("an answer to another question").to_string())
    }

    fn broken(&self, what: String) -> PullError {
        PullError::Protocol { peer: self.peer.clone(), what }
    }
}

fn connect(peer: &PeerAddress, options: &PullerOptions) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (peer.host.as_str(), peer.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, options.timeouts.connect) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The bytes of one piece of blocks that we are filling.
#[allow(clippy::mut_from_ref, reason = "blocks being filled are the pull's alone")]
fn bytes_of<'a>(into: &'a [Block], piece: &Span) -> &'a mut [u8] {
    let block = &into[piece.block];
    let base = block.pool().view().block(block.id());
    // SAFETY: the plan's spans lie within a block. The pull owns the blocks (see `Claim::pull`), a
    // frame's pieces do not overlap, and no slice of an earlier frame or use is alive.
    unsafe {
        std::slice::from_raw_parts_mut(base.add(piece.bytes.start).as_ptr(), piece.bytes.len())
    }
}
