//! Handing the pool's descriptor to a peer on this host.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use plumb_region::Region;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Names this boot of this machine; the same in all of its containers. Empty where it cannot be
/// read: then no peer is on this host.
pub(super) fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A unix socket for one peer, in the abstract name space: no file to leave behind, and out of reach
/// from other network namespaces.
#[derive(Debug)]
pub(super) struct Doorway {
    listener: UnixListener,
    pub(super) name: String,
    pub(super) ticket: String,
}

/// How the handing over went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Over,
    /// The peer went on on its TCP connection, or hung up.
    Unwanted,
    TimedOut,
}

impl Doorway {
    pub(super) fn open() -> io::Result<Self> {
        let name = format!("plumb-kv-{:032x}", rand::random::<u128>());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, name, ticket: format!("{:032x}", rand::random::<u128>()) })
    }

    /// Waits for the peer that is connected by `side_channel` and hands it the descriptor; `strangers`
    /// is called for each who came without right.
    pub(super) fn hand_over(
        self,
        region: &Region,
        side_channel: &TcpStream,
        deadline: Instant,
        mut strangers: impl FnMut(),
    ) -> io::Result<Handed> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Handed::TimedOut);
            }
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(side_channel, PollFlags::IN),
            ];
            let wait = Timespec::try_from(left).ok();
            match poll(&mut fds, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            if fds[0].revents().is_empty() {
                if !fds[1].revents().is_empty() {
                    return Ok(Handed::Unwanted);
                }
                continue;
            }
            let Ok((mut visitor, _)) = self.listener.accept() else { continue };
            if self.admits(&mut visitor, left).unwrap_or(false) {
                send_descriptor(&visitor, region)?;
                return Ok(Handed::Over);
            }
            strangers();
        }
    }

    fn admits(&self, visitor: &mut UnixStream, left: Duration) -> io::Result<bool> {
        if !same_user(visitor)? {
            return Ok(false);
        }
        visitor.set_nonblocking(false)?;
        // One who holds the door without a ticket must not keep the peer out.
        visitor.set_read_timeout(Some(left.min(Duration::from_millis(200))))?;
        let mut shown = vec![0; self.ticket.len()];
        visitor.read_exact(&mut shown)?;
        Ok(shown == self.ticket.as_bytes())
    }
}

fn same_user(stream: &UnixStream) -> io::Result<bool> {
    Ok(socket_peercred(stream)?.uid == rustix::process::geteuid())
}

fn send_descriptor(visitor: &UnixStream, region: &Region) -> io::Result<()> {
    visitor.set_write_timeout(Some(Duration::from_secs(1)))?;
    let fds = [region.fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(visitor.as_fd(), &[IoSlice::new(b"P")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Fetches a peer's pool through the socket that it named.
pub(super) fn fetch(
    socket: &str,
    ticket: &str,
    region_name: &str,
    bytes: usize,
    timeout: Duration,
) -> Result<Region, String> {
    let failed = |step| move |error: io::Error| format!("{step}: {error}");
    let address = SocketAddr::from_abstract_name(socket).map_err(failed("socket name"))?;
    let mut stream = UnixStream::connect_addr(&address).map_err(failed("connect"))?;
    if !same_user(&stream).map_err(failed("who is there"))? {
        return Err("the peer runs as another user".to_owned());
    }
    stream.set_read_timeout(Some(timeout)).map_err(failed("timeout"))?;
    stream.set_write_timeout(Some(timeout)).map_err(failed("timeout"))?;
    stream.write_all(ticket.as_bytes()).map_err(failed("show the ticket"))?;
    let fd = receive_descriptor(&stream).map_err(failed("receive the descriptor"))?;
    Region::open(region_name, fd, bytes).map_err(|error| error.to_string())
}

fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("the peer sent none"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Hands a region over while `visit` is done on a thread of its own: how it ended, what the visit
    /// brought, and how many strangers came.
    fn hand_over_to<T: Send + 'static>(
        wait: Duration,
        visit: impl FnOnce(String, String, TcpStream) -> T + Send + 'static,
    ) -> (Handed, T, usize) {
        let region = Region::create("kv-test-handed", 4096).unwrap();
        let doorway = Doorway::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        let (name, ticket) = (doorway.name.clone(), doorway.ticket.clone());
        let visitor = thread::spawn(move || visit(name, ticket, theirs));
        let mut strangers = 0;
        let handed = doorway.hand_over(&region, &ours, Instant::now() + wait, || strangers += 1);
        (handed.unwrap(), visitor.join().unwrap(), strangers)
    }

    #[test]
    fn who_has_no_ticket_gets_nothing_and_keeps_nobody_out() {
        let (handed, (guess, right), strangers) = hand_over_to(SOON, |name, ticket, side| {
            let guess = fetch(&name, &"0".repeat(32), "peer-guess", 4096, SOON).map(drop);
            let right = fetch(&name, &ticket, "peer-right", 4096, SOON).map(|r| r.len());
            drop(side);
            (guess, right)
        });
        assert_eq!((handed, right, strangers), (Handed::Over, Ok(4096), 1));
        assert!(guess.is_err());
    }

    #[test]
    fn another_user_gets_nothing_even_with_the_ticket() {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test becomes another user on a thread: it needs root");
        let (handed, answer, strangers) = hand_over_to(SOON, |name, ticket, side| {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let address = SocketAddr::from_abstract_name(name).unwrap();
            let mut stream = UnixStream::connect_addr(&address).unwrap();
            stream.write_all(ticket.as_bytes()).ok();
            let answer = receive_descriptor(&stream).map(drop);
            drop(side);
            answer
        });
        assert_eq!((handed, strangers), (Handed::Unwanted, 1));
        assert!(answer.is_err());
    }

    #[test]
    fn a_peer_that_never_comes_costs_a_bounded_time() {
        let (handed, side, _) = hand_over_to(Duration::from_millis(50), |_, _, side| side);
        assert_eq!(handed, Handed::TimedOut);
        drop(side);
    }
}
