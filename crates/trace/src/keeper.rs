//! Switches uprobes on and off in a process of its own, so that they go also when we are killed.
//!
//! Who is killed by SIGKILL closes its files while the signal is still pending, and then the kernel
//! does not write to the target any more: the breakpoint of a probe stays in its text (Linux 6.18,
//! `uprobe_unregister`, which gives up where a fatal signal is pending). The same happens when the
//! signal comes in the midst of switching a probe. So a small process shares our table of open files
//! and does all the switching. It outlives us, and closes what is left by an ordinary end.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// How long a probe may take to switch: the kernel takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A probe that is on: its descriptor in the table that both processes share.
#[derive(Debug)]
pub struct Link(RawFd);

/// Our end of the process that switches.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    /// The other end and our own pidfd: the keeper's, in the table that both share.
    shared: [OwnedFd; 2],
    /// Several, since one that takes probes off waits: they answer to one socket.
    pids: Vec<libc::pid_t>,
    /// The kernel's number for uprobe events, where each probe is one of its own.
    kind: Option<u32>,
    /// Probes that are being taken off.
    leaving: usize,
}

/// What the keeper is asked to do. It shares no memory with us, so the path travels too.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ask {
    /// The probe to take off, or -1 to put one on.
    off: RawFd,
    program: RawFd,
    pid: libc::pid_t,
    /// Of a probe of its own; all zero for those of `many`, together.
    event: Event,
    many: Many,
    path: [u8; libc::PATH_MAX as usize],
}

/// Functions of one file to probe together.
#[repr(C)]
#[derive(Clone, Copy)]
struct Many {
    count: u32,
    flags: u32,
    offsets: [u64; MOST],
    cookies: [u64; MOST],
    counters: [u64; MOST],
}

impl Many {
    const NONE: Self =
        Self { count: 0, flags: 0, offsets: [0; MOST], cookies: [0; MOST], counters: [0; MOST] };

    /// As many as there is room for.
    fn of(places: &[Placement]) -> Self {
        let mut many = Self { count: places.len().min(MOST) as u32, ..Self::NONE };
        for (slot, place) in places.iter().take(MOST).enumerate() {
            many.offsets[slot] = place.offset;
            many.cookies[slot] = place.cookie;
            many.counters[slot] = place.counter;
        }
        many
    }
}

fn kind_of_uprobes() -> io::Result<u32> {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    kind.trim().parse().map_err(io::Error::other)
}

/// Whether the kernel has links of many functions, and keeps them to a process and not to its first
/// thread alone, as the first such kernels did. A folder cannot be probed, which a kernel without them
/// never comes to see; a process of no number is refused before that only by those that look at
/// processes (as libbpf's `probe_uprobe_multi_link` has it).
pub fn takes_many(program: BorrowedFd<'_>) -> bool {
    let refuses = |pid: i32, refusal: i32| {
        let (path, offset) = (c"/", 0u64);
        let link = LinkAttr {
            program: program.as_raw_fd().cast_unsigned(),
            attach_type: UPROBE_MULTI,
            path: path.as_ptr() as u64,
            offsets: (&raw const offset) as u64,
            count: 1,
            pid: pid.cast_unsigned(),
            ..LinkAttr::default()
        };
        let size = size_of::<LinkAttr>();
        // SAFETY: what the link points to lives through the call; a descriptor of one that is made in
        // spite of all is ours to close.
        unsafe {
            let fd = libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const link, size);
            if fd >= 0 {
                libc::close(fd as RawFd);
            }
            fd < 0 && *libc::__errno_location() == refusal
        }
    };
    refuses(0, libc::EBADF) && refuses(-1, libc::EINVAL)
}

/// A place in a file that is probed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placement {
    /// In bytes.
    pub offset: u64,
    /// What the program is given there.
    pub cookie: u64,
    /// Where in the file the kernel counts who probes it; 0 for nowhere.
    pub counter: u64,
}

/// Functions probed by one link.
const MOST: usize = 256;

/// `union bpf_attr` of `BPF_LINK_CREATE` for `BPF_TRACE_UPROBE_MULTI` (linux/bpf.h).
#[repr(C)]
#[derive(Debug, Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// For `BPF_PERF_EVENT` the cookie, after which all is zero.
    path: u64,
    offsets: u64,
    counters: u64,
    cookies: u64,
    count: u32,
    many_flags: u32,
    pid: u32,
    pad: u32,
}

const LINK_CREATE: libc::c_long = 28;
/// Links of many functions: Linux 6.6.
pub const UPROBE_MULTI: u32 = 48;
/// Links of one probe with a cookie: Linux 5.15.
const PERF_EVENT: u32 = 41;
const MANY_AT_RETURN: u32 = 1;

/// `struct perf_event_attr` up to `config2` (`PERF_ATTR_SIZE_VER1`, linux/perf_event.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    /// Of uprobes: the address of the file's path.
    config1: u64,
    /// Of uprobes: the offset in the file.
    config2: u64,
}

/// Bit 0 of `config` makes a probe one of returns, and the upper half is where the file counts who
/// probes it (`/sys/bus/event_source/devices/uprobe/format`).
const AT_RETURN: u64 = 1;
const COUNTER_SHIFT: u32 = 32;
const CLOSE_ON_EXEC: libc::c_long = 8;
const NOTHING: RawFd = -1;
/// Links of one burst on one file: entries, returns, and what is given back.
const TOGETHER: usize = 3;
/// Where each function has probes of its own.
const APART: usize = 8;

impl Keeper {
    /// Starts it, for links of many functions together or for probes apart.
    ///
    /// # Errors
    /// A kernel without uprobe events, or without room for a process.
    pub fn start(together: bool) -> io::Result<Self> {
        let kind = if together { None } else { Some(kind_of_uprobes()?) };
        let mut ends = [0; 2];
        let form = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: room for two descriptors, which are ours from here on.
        let (ours, theirs) = unsafe {
            if libc::socketpair(libc::AF_UNIX, form, 0, ends.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        // One that was killed answers no more, and its end stays open in our table.
        set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
        let us = pidfd_open(getpid(), PidfdFlags::empty())?;
        let mut keeper =
            Self { socket: ours, shared: [theirs, us], pids: Vec::new(), kind, leaving: 0 };
        for _ in 0..if together { TOGETHER } else { APART } {
            // SAFETY: a copy of this thread alone, in memory of its own, that shares the table of open
            // files. It makes system calls until its end: no allocation, no lock, no return.
            let pid = unsafe {
                let pid = libc::syscall(libc::SYS_clone, libc::CLONE_FILES, 0, 0, 0, 0);
                if pid == 0 {
                    keep(keeper.shared[0].as_raw_fd(), keeper.shared[1].as_raw_fd());
                }
                pid
            };
            if pid < 0 {
                return Err(io::Error::last_os_error());
            }
            keeper.pids.push(pid as libc::pid_t);
        }
        Ok(keeper)
    }

    /// Puts a program at functions of a file, each offset with its cookie, for one process; what is on
    /// is added to `links`, also before a failure.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn on(
        &mut self,
        program: BorrowedFd<'_>,
        (path, places): (&Path, &[Placement]),
        at_return: bool,
        pid: u32,
        links: &mut Vec<Link>,
    ) -> io::Result<()> {
        let Some(kind) = self.kind else {
            let flags = if at_return { MANY_AT_RETURN } else { 0 };
            for places in places.chunks(MOST) {
                let many = Many { flags, ..Many::of(places) };
                links.push(self.put(program, path, pid, Event::default(), many)?);
            }
            return Ok(());
        };
        let size = size_of::<Event>() as u32;
        for place in places {
            let config = if at_return { AT_RETURN } else { 0 } | place.counter << COUNTER_SHIFT;
            let event = Event { kind, size, config, config2: place.offset, ..Event::default() };
            let many = Many::of(std::slice::from_ref(place));
            links.push(self.put(program, path, pid, event, many)?);
        }
        Ok(())
    }

    fn put(
        &mut self,
        program: BorrowedFd<'_>,
        path: &Path,
        pid: u32,
        event: Event,
        many: Many,
    ) -> io::Result<Link> {
        self.wait_off();
        let mut ask = Ask {
            off: NOTHING,
            program: program.as_raw_fd(),
            pid: pid.cast_signed(),
            event,
            many,
            path: [0; libc::PATH_MAX as usize],
        };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let bytes = path.as_bytes_with_nul();
        let room = ask.path.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidFilename)?;
        room.copy_from_slice(bytes);
        self.send(&ask)?;
        match self.answer()? {
            fd if fd >= 0 => Ok(Link(fd)),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    /// Begins to take probes off. For each the kernel removes the breakpoint and then waits for a
    /// tenth of a second: [`Keeper::is_off`] tells when all are.
    pub fn off(&mut self, links: impl IntoIterator<Item = Link>) {
        let none = Event::default();
        for Link(off) in links {
            let path = [0; libc::PATH_MAX as usize];
            // Without a keeper there is nobody left to take them off but our own end.
            let many = Many::NONE;
            if self.send(&Ask { off, program: NOTHING, pid: 0, event: none, many, path }).is_ok() {
                self.leaving += 1;
            }
        }
    }

    /// Whether probes are being taken off, as far as was heard.
    pub fn is_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Whether all probes that were to go are off.
    pub fn is_off(&mut self) -> bool {
        while self.leaving > 0 && self.receive(libc::MSG_DONTWAIT).is_ok() {
            self.leaving -= 1;
        }
        self.leaving == 0
    }

    /// Waits until they are.
    pub fn wait_off(&mut self) {
        while self.leaving > 0 && self.answer().is_ok() {
            self.leaving -= 1;
        }
        self.leaving = 0;
    }

    fn send(&self, ask: &Ask) -> io::Result<()> {
        // SAFETY: the bytes of `ask`, which has no padding that was not written.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                std::ptr::from_ref(ask).cast(),
                size_of::<Ask>(),
                libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn answer(&self) -> io::Result<i32> {
        loop {
            match self.receive(0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn receive(&self, flags: libc::c_int) -> io::Result<i32> {
        let mut answer = 0i32;
        let fd = self.socket.as_raw_fd();
        // SAFETY: room for one number.
        match unsafe { libc::recv(fd, (&raw mut answer).cast(), size_of::<i32>(), flags) } {
            4 => Ok(answer),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wait_off();
        for pid in self.pids.drain(..) {
            // SAFETY: our own child, whose end is waited for at once. It holds no probe any more.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
            }
        }
    }
}

/// The keeper's life: asks are answered until the parent has ended, then everything is closed.
///
/// # Safety
/// Only in a copy of one thread that never returns.
unsafe fn keep(socket: RawFd, parent: RawFd) -> ! {
    // SAFETY: system calls on memory of this function alone.
    unsafe {
        // Not of the group or the terminal's session that is being killed.
        libc::syscall(libc::SYS_setsid);
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut waits = [poll(socket), poll(parent)];
        let mut ask = std::mem::MaybeUninit::<Ask>::uninit();
        loop {
            libc::syscall(libc::SYS_poll, waits.as_mut_ptr(), 2, -1);
            if waits[1].revents != 0 {
                break;
            }
            if waits[0].revents == 0 {
                continue;
            }
            let got = libc::syscall(
                libc::SYS_recvfrom,
                socket,
                ask.as_mut_ptr(),
                size_of::<Ask>(),
                libc::MSG_DONTWAIT,
                0,
                0,
            );
            if got == size_of::<Ask>() as libc::c_long {
                let answer = switch(ask.assume_init_mut());
                let flags = libc::MSG_NOSIGNAL;
                libc::syscall(libc::SYS_sendto, socket, &raw const answer, 4, flags, 0, 0);
            } else if got == 0 {
                break;
            }
        }
        libc::_exit(0)
    }
}

/// Does what was asked: the descriptor of a probe, 0 for one that is off, or an error as the kernel
/// gives it.
///
/// # Safety
/// Of a copy of one thread: system calls only.
unsafe fn switch(ask: &mut Ask) -> i32 {
    // SAFETY: the descriptors are of the shared table, the path ends in a zero byte, and what the link
    // points to lives through the call.
    unsafe {
        if ask.off >= 0 {
            libc::syscall(libc::SYS_close, ask.off);
            return 0;
        }
        let create = |link: LinkAttr| {
            let size = size_of::<LinkAttr>();
            let fd = libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const link, size);
            if fd < 0 { -*libc::__errno_location() } else { fd as i32 }
        };
        let program = ask.program.cast_unsigned();
        if ask.event.size == 0 {
            return create(LinkAttr {
                program,
                target: 0,
                attach_type: UPROBE_MULTI,
                flags: 0,
                path: ask.path.as_ptr() as u64,
                offsets: ask.many.offsets.as_ptr() as u64,
                counters: ask.many.counters.as_ptr() as u64,
                cookies: ask.many.cookies.as_ptr() as u64,
                count: ask.many.count,
                many_flags: ask.many.flags,
                pid: ask.pid.cast_unsigned(),
                pad: 0,
            });
        }
        ask.event.config1 = ask.path.as_ptr() as u64;
        let event = &raw const ask.event;
        let fd = libc::syscall(libc::SYS_perf_event_open, event, ask.pid, -1, -1, CLOSE_ON_EXEC);
        if fd < 0 {
            return -*libc::__errno_location();
        }
        let target = fd as u32;
        let path = ask.many.cookies[0];
        let attach_type = PERF_EVENT;
        let link = create(LinkAttr { program, target, attach_type, path, ..LinkAttr::default() });
        // The link holds the probe from here on, and without a link there shall be none.
        libc::syscall(libc::SYS_close, fd);
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_kernels_own() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let program = std::os::fd::AsFd::as_fd(&null);
        assert!(!takes_many(program), "it is no program");
        let places = [Placement { offset: 0x1000, ..Placement::default() }; 2];
        let nowhere = (Path::new("/nowhere/lib.so"), places.as_slice());
        let Ok(mut keeper) = Keeper::start(false) else { return };
        let mut links = Vec::new();
        let error = keeper.on(program, nowhere, false, std::process::id(), &mut links).unwrap_err();
        let known = [libc::ENOENT, libc::EACCES, libc::EPERM];
        assert!(error.raw_os_error().is_some_and(|code| known.contains(&code)), "{error}");
        assert!(keeper.is_off() && links.is_empty());
    }
}
