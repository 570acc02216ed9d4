//! A TCP connection on which everything has a deadline.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, HEADER, Kind, Malformed};

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer was silent for too long")]
    Idle,
    #[error("the peer was slow for too long")]
    Timeout,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// For one message, once it has begun.
    message: Duration,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, message: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, message })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn message(&self) -> Duration {
        self.message
    }

    /// Writes a control frame.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        let frame = frame::control(message)?;
        let deadline = Instant::now() + self.message;
        self.write_all(&mut [IoSlice::new(&frame)], deadline)
    }

    /// Reads a control frame that begins before `begin`.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, begin: Instant) -> Result<T, WireError> {
        let bytes = self.receive_header(Kind::Control, begin)?;
        let mut payload = vec![0; bytes];
        let deadline = Instant::now() + self.message;
        self.read_exact(&mut [IoSliceMut::new(&mut payload)], deadline)?;
        Ok(frame::parse_control(&payload)?)
    }

    fn receive_header(&mut self, wanted: Kind, begin: Instant) -> Result<usize, WireError> {
        let mut header = [0; HEADER];
        self.stream.set_read_timeout(Some(remaining(begin)?))?;
        let have = self.stream.read(&mut header).map_err(|error| match error.into() {
            WireError::Timeout => WireError::Idle,
            error => error,
        })?;
        if have == 0 {
            return Err(WireError::Closed);
        }
        let deadline = Instant::now() + self.message;
        self.read_exact(&mut [IoSliceMut::new(&mut header[have..])], deadline)?;
        let (found, bytes) = frame::parse_header(header)?;
        if found == wanted { Ok(bytes) } else { Err(Malformed::Kind { wanted, found }.into()) }
    }

    /// Writes a data frame gathered from `pieces`, of `bytes` in all.
    pub(super) fn send_data<'a>(
        &mut self,
        bytes: usize,
        pieces: impl Iterator<Item = IoSlice<'a>>,
        deadline: Instant,
    ) -> Result<(), WireError> {
        let header = frame::header(Kind::Data, bytes);
        let mut slices: Vec<IoSlice<'_>> = std::iter::once(IoSlice::new(&header)).collect();
        for piece in pieces {
            slices.push(piece);
        }
        self.write_all(&mut slices, deadline.min(Instant::now() + self.message))
    }

    /// Reads a data frame of exactly `bytes`, scattered into `pieces`.
    pub(super) fn receive_data(
        &mut self,
        bytes: usize,
        pieces: &mut [IoSliceMut<'_>],
        deadline: Instant,
    ) -> Result<(), WireError> {
        let deadline = deadline.min(Instant::now() + self.message);
        let found = self.receive_header(Kind::Data, deadline)?;
        if found != bytes {
            return Err(Malformed::Data { wanted: bytes, found }.into());
        }
        self.read_exact(pieces, deadline)
    }

    fn read_exact(
        &mut self,
        mut into: &mut [IoSliceMut<'_>],
        deadline: Instant,
    ) -> Result<(), WireError> {
        IoSliceMut::advance_slices(&mut into, 0);
        while !into.is_empty() {
            self.stream.set_read_timeout(Some(remaining(deadline)?))?;
            match self.stream.read_vectored(into) {
                Ok(0) => return Err(WireError::Closed),
                Ok(read) => IoSliceMut::advance_slices(&mut into, read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_all(
        &mut self,
        mut from: &mut [IoSlice<'_>],
        deadline: Instant,
    ) -> Result<(), WireError> {
        IoSlice::advance_slices(&mut from, 0);
        while !from.is_empty() {
            self.wait_for_room(deadline)?;
            let (mut none, flags) = (SendAncillaryBuffer::default(), SendFlags::DONTWAIT);
            match sendmsg(&self.stream, from, &mut none, flags | SendFlags::NOSIGNAL) {
                Ok(written) => IoSlice::advance_slices(&mut from, written),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// A peer that hangs up while we wait is gone at once, not when the deadline is over: its kernel
    /// need not say more than that it will send nothing.
    fn wait_for_room(&self, deadline: Instant) -> Result<(), WireError> {
        let left = Timespec::try_from(remaining(deadline)?).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.stream, PollFlags::OUT | PollFlags::RDHUP)];
        match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => {}
            polled => {
                polled.map_err(io::Error::from)?;
            }
        }
        if fds[0].revents().contains(PollFlags::RDHUP) { Err(WireError::Closed) } else { Ok(()) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Others may hold clones of the socket, to interrupt us: the peer must learn it all the same.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

/// Time left, or the timeout.
fn remaining(deadline: Instant) -> Result<Duration, WireError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(WireError::Timeout) } else { Ok(left) }
}
