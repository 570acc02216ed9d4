//! A pull across a network: the peer in one network namespace, this process in another, a veth pair
//! between them. Needs root and iproute2.

mod support;

use std::process::Command;
use std::thread;

use plumb_kv::transfer::{PullError, Transport, Transports};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::peer::{Peer, Settings};
use support::{by, check, decode, eventually, pattern, remote, shape, targets};

#[test]
fn as_a_peer() {
    support::peer::run_if_started_as_one();
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("iproute2's `ip` is needed: install the package iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error} (this test needs root)");
}

/// Two network namespaces joined by a veth pair, removed when dropped, also on failure.
struct Networks {
    prefill: String,
    decode: String,
}

const PREFILL: &str = "10.213.7.1";
const DECODE: &str = "10.213.7.2";

impl Networks {
    fn new(test: &str) -> Self {
        let id = format!("{test}{}", std::process::id());
        let names = Self { prefill: format!("plumb-p-{id}"), decode: format!("plumb-d-{id}") };
        let (prefill, decode) = (&names.prefill, &names.decode);
        ip(&format!("netns add {prefill}"));
        ip(&format!("netns add {decode}"));
        ip(&format!("link add veth0 netns {prefill} type veth peer name veth0 netns {decode}"));
        for (namespace, address) in [(prefill, PREFILL), (decode, DECODE)] {
            ip(&format!("-n {namespace} address add {address}/24 dev veth0"));
            ip(&format!("-n {namespace} link set veth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        names
    }

    fn peer(&self, settings: &Settings) -> Peer {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.prefill]).arg(std::env::current_exe().unwrap());
        Peer::start_by(command, settings)
    }

    /// Runs `work` on a thread in the decode side's namespace; threads that it starts are there too.
    fn on_decode_side<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.decode)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let fd = std::os::fd::AsFd::as_fd(&namespace);
                move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for namespace in [&self.prefill, &self.decode] {
            Command::new("ip").args(["netns", "delete", namespace]).output().ok();
        }
    }
}

#[test]
fn blocks_cross_a_network_and_only_allowed_hosts_get_them() {
    let networks = Networks::new("a");
    let bind = format!("{PREFILL}:0");
    let allow = vec![DECODE.parse().unwrap()];
    let settings = Settings { bind, allow, windowed: true, ..Settings::default() };
    let mut peer = networks.peer(&settings);
    let address = peer.address.clone();
    let ids: Vec<String> = (0..3).map(|_| peer.grant(50)).collect();

    networks.on_decode_side(|| {
        // Same machine, same boot, but its unix sockets are out of reach: TCP it is.
        for (lease, transports) in [(0, Transports::Auto), (1, Transports::Tcp)] {
            let decode = decode("kv-test-netns", shape(4096, true), &[&address], |o| {
                o.transports = transports;
                o.checksum = true;
            });
            let claim = decode.puller.claim(remote(&address, "engine-1", &ids[lease])).unwrap();
            let pulled = claim.pull(0, targets(&decode.pool, 50)).wait().unwrap();
            assert_eq!(pulled.transport, Transport::Tcp);
            assert_eq!(pulled.bytes, (50 * 2 + 3) * 4096);
            for (at, block) in pulled.blocks.iter().enumerate() {
                check(block, 0..4096, |word| pattern(lease as u64, at, word));
                check(block, 8192..12288, |word| pattern(lease as u64, at, word));
            }
        }
        let shm = decode("kv-test-far", shape(4096, true), &[&address], by(Transports::Shm));
        let claim = shm.puller.claim(remote(&address, "engine-1", &ids[2])).unwrap();
        let error = claim.pull(0, targets(&shm.pool, 50)).wait().unwrap_err();
        assert!(matches!(error, PullError::NoSharedMemory { .. }), "{error}");
    });
    eventually("all leases are given back", || peer.counts().leases == 0);
    assert_eq!(peer.counts().used, 0);

    // Another host of that network, which the peer was not told of.
    drop(peer);
    let allow = vec!["10.213.7.9".parse().unwrap()];
    let mut peer = networks.peer(&Settings { allow, ..settings });
    let (address, id) = (peer.address.clone(), peer.grant(1));
    networks.on_decode_side(|| {
        let decode = decode("kv-test-other", shape(4096, true), &[&address], |_| ());
        let claim = decode.puller.claim(remote(&address, "engine-1", &id)).unwrap();
        claim.pull(0, targets(&decode.pool, 1)).wait().unwrap_err();
    });
    assert!(peer.counts().refused(plumb_kv::transfer::Refusal::ForeignHost) >= 1);
    assert_eq!(peer.counts().served_tcp, 0);
}

#[test]
fn a_link_that_goes_down_in_the_middle_is_an_error_in_bounded_time() {
    let networks = Networks::new("b");
    let settings = Settings {
        bind: format!("{PREFILL}:0"),
        allow: vec![DECODE.parse().unwrap()],
        ..Settings::default()
    };
    let mut peer = networks.peer(&settings);
    let (address, ids) = (peer.address.clone(), [peer.grant(5), peer.grant(5)]);
    networks.on_decode_side(|| {
        let decode = decode("kv-test-down", shape(4096, false), &[&address], |o| {
            o.timeouts.message = std::time::Duration::from_millis(200);
            o.timeouts.connect = std::time::Duration::from_millis(200);
        });
        let claim = |id| decode.puller.claim(remote(&address, "engine-1", id)).unwrap();
        claim(&ids[0]).pull(0, targets(&decode.pool, 5)).wait().unwrap();
        ip(&format!("-n {} link set veth0 down", networks.prefill));
        let error = claim(&ids[1]).pull(0, targets(&decode.pool, 5)).wait().unwrap_err();
        let told = matches!(error, PullError::Timeout { .. } | PullError::Unreachable { .. });
        assert!(told, "{error}");
        assert_eq!(decode.pool.counts().used, 0);
    });
}
