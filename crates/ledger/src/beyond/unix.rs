//! What waits in unix sockets. No file lists it; the kernel's socket diagnosis does, for the network
//! namespace in which it is asked (sock_diag(7)).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use plumb_target::Process;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `SOCK_DIAG_BY_FAMILY`, `NLM_F_REQUEST | NLM_F_DUMP`; the kinds of answer.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `AF_UNIX`, and what is asked for: `UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN | UDIAG_SHOW_MEMINFO`.
const UNIX: u8 = 1;
const SHOW: u32 = 0x34;
/// Attributes: `UNIX_DIAG_PEER`, `UNIX_DIAG_RQLEN`, `UNIX_DIAG_MEMINFO`.
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const MEMORY: u16 = 5;
/// `SK_MEMINFO_WMEM_ALLOC`: what it sent and nobody has read, with all that the kernel needs for it.
const SENT: usize = 2;
/// `TCP_LISTEN`: the receive queue counts connections then.
const LISTENS: u8 = 10;
/// The kernel answers in pieces of at most so much.
const PIECE: usize = 32 << 10;

/// One unix socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Socket {
    inode: u64,
    peer: Option<u64>,
    listens: bool,
    /// Bytes that wait to be read, of datagrams the first alone.
    received: u64,
    /// Memory of what it sent and nobody has read.
    sent: u64,
}

/// Memory of what waits in those of these sockets that are unix sockets. The kernel charges it to who
/// sent it; it is told of who is to read it, where both know each other.
pub(super) fn queued(process: &Process, wanted: &HashSet<u64>) -> io::Result<u64> {
    Ok(waiting(&list(process)?, wanted))
}

fn waiting(sockets: &[Socket], wanted: &HashSet<u64>) -> u64 {
    let by_inode: HashMap<u64, &Socket> =
        sockets.iter().filter(|s| s.inode != 0).map(|s| (s.inode, s)).collect();
    let of = |socket: &Socket| {
        let peer = socket.peer.and_then(|peer| by_inode.get(&peer));
        match peer {
            Some(peer) if peer.peer == Some(socket.inode) => peer.sent,
            // Whoever else sends to its peer is told of what it sent.
            Some(_) => socket.sent,
            None if socket.listens => socket.sent,
            // What its sender left behind when it closed.
            None => socket.received + socket.sent,
        }
    };
    wanted.iter().filter_map(|inode| by_inode.get(inode)).map(|socket| of(socket)).sum()
}

/// All unix sockets of a process's network namespace.
fn list(process: &Process) -> io::Result<Vec<Socket>> {
    let theirs = process.path("ns/net");
    if fs::read_link(&theirs)? == fs::read_link("/proc/thread-self/ns/net")? {
        return ask(&open()?);
    }
    let namespace = File::open(&theirs)?;
    // A socket stays where it was made, a thread that went there can end.
    let there = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        open()
    });
    let socket = there.join().map_err(|_| io::Error::other("a thread panicked"))?;
    let refused =
        |error: io::Error| io::Error::new(error.kind(), format!("its network namespace: {error}"));
    ask(&socket.map_err(refused)?)
}

fn open() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
}

fn ask(kernel: &OwnedFd) -> io::Result<Vec<Socket>> {
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    // All protocols, all states, all inodes, any cookie.
    request.extend([UNIX, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    request.extend(SHOW.to_ne_bytes());
    request.extend([0; 8]);
    send(kernel, &request, SendFlags::empty())?;
    let mut sockets = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let (_, length) = recv(kernel, &mut piece[..], RecvFlags::empty())?;
        if answer(&piece[..length.min(PIECE)], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

/// Takes one piece of the answer; whether it was the last.
fn answer(mut piece: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    while let Some(length) = u32_at(piece, 0).map(|length| length as usize) {
        let (Some(message), Some(kind)) = (piece.get(16..length), u16_at(piece, 4)) else { break };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let number = u32_at(message, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
            }
            _ => sockets.extend(socket(message)),
        }
        piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // A piece without a message would be asked for without end.
    if piece.is_empty() { Ok(false) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// `struct unix_diag_msg` and its attributes.
fn socket(message: &[u8]) -> Option<Socket> {
    let mut socket = Socket {
        inode: u32_at(message, 4)?.into(),
        listens: *message.get(2)? == LISTENS,
        ..Socket::default()
    };
    let mut rest = message.get(16..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        match kind {
            PEER => socket.peer = u32_at(value, 0).map(u64::from),
            QUEUES => socket.received = u32_at(value, 0)?.into(),
            MEMORY => socket.sent = u32_at(value, 4 * SENT)?.into(),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    const WRITTEN: u64 = 60_000;
    /// What the kernel needs beside the bytes themselves.
    const MORE: u64 = 16 << 10;

    fn of(ends: &[&dyn AsRawFd]) -> u64 {
        let inode = |end: &&dyn AsRawFd| {
            let link = fs::read_link(format!("/proc/self/fd/{}", end.as_raw_fd())).unwrap();
            link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
        };
        queued(&Process::own(), &ends.iter().map(inode).collect()).unwrap()
    }

    #[track_caller]
    fn holds(ends: &[&dyn AsRawFd], bytes: u64) {
        let seen = of(ends);
        assert!((bytes..=bytes + MORE).contains(&seen), "{seen} instead of {bytes}");
    }

    #[test]
    fn what_waits_in_a_pair_is_the_readers_and_is_counted_once() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        assert_eq!(of(&[&writer, &reader]), 0);
        writer.write_all(&[1; WRITTEN as usize]).unwrap();
        holds(&[&reader], WRITTEN);
        holds(&[&reader, &writer], WRITTEN);
        assert_eq!(of(&[&writer]), 0);
        reader.read_exact(&mut [0; WRITTEN as usize]).unwrap();
        assert_eq!(of(&[&writer, &reader]), 0);
        writer.write_all(&[1; WRITTEN as usize]).unwrap();
        drop(writer);
        holds(&[&reader], WRITTEN);
    }

    #[test]
    fn datagrams_are_counted_to_the_last() {
        let (writer, reader) = UnixDatagram::pair().unwrap();
        (0..3).for_each(|_| assert_eq!(writer.send(&[1; 20_000]).unwrap(), 20_000));
        holds(&[&reader, &writer], WRITTEN);
    }

    #[test]
    fn what_nobody_has_accepted_yet_is_the_writers() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let mut writer = UnixStream::connect(folder.path().join("socket")).unwrap();
        writer.write_all(&[1; WRITTEN as usize]).unwrap();
        holds(&[&writer, &listener], WRITTEN);
        let (reader, _) = listener.accept().unwrap();
        holds(&[&writer, &listener, &reader], WRITTEN);
    }

    #[test]
    fn an_answer_that_is_cut_ends_in_an_error() {
        let mut sockets = Vec::new();
        assert!(answer(&[200, 0, 0, 0, 20, 0, 0, 0, 0, 0], &mut sockets).is_err());
        assert!(answer(&[0; 64], &mut sockets).is_err());
        let refused = [20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff];
        let error = answer(&refused, &mut sockets).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
