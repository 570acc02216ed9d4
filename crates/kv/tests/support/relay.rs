//! Stands between puller and peer, to stop the peer's bytes at a chosen point.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};

use plumb_kv::transfer::PeerAddress;

pub struct Relay {
    pub address: PeerAddress,
    /// Told once, when the limit is reached.
    pub reached: Receiver<()>,
    flowing: Arc<AtomicBool>,
}

impl Relay {
    /// Relays everything, but of the peer's bytes on a connection only the first `limit`; what comes
    /// after is kept back until [`open`](Self::open).
    pub fn start(to: &PeerAddress, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let flowing = Arc::new(AtomicBool::new(false));
        let (tell, reached) = channel();
        let (to, open) = (to.to_string(), Arc::clone(&flowing));
        std::thread::spawn(move || {
            for from_puller in listener.incoming().map_while(Result::ok) {
                let Ok(from_peer) = TcpStream::connect(&to) else { continue };
                let (puller, peer) =
                    (from_puller.try_clone().unwrap(), from_peer.try_clone().unwrap());
                std::thread::spawn(move || copy(from_puller, peer, usize::MAX, || ()));
                let (tell, open) = (tell.clone(), Arc::clone(&open));
                std::thread::spawn(move || {
                    copy(from_peer, puller, limit, || {
                        tell.send(()).ok();
                        super::eventually("the relay is opened or the test over", || {
                            open.load(SeqCst)
                        });
                    });
                });
            }
        });
        Self { address, reached, flowing }
    }

    pub fn open(&self) {
        self.flowing.store(true, SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.open();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, limit: usize, at_limit: impl FnOnce()) {
    let mut at_limit = Some(at_limit);
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let now = read.min(limit.saturating_sub(copied).max(1));
        if to.write_all(&buffer[..now]).is_err() {
            break;
        }
        copied += now;
        if copied >= limit
            && let Some(at_limit) = at_limit.take()
        {
            at_limit();
        }
        if to.write_all(&buffer[now..read]).is_err() {
            break;
        }
        copied += read - now;
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}
