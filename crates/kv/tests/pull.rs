//! Pulls between two processes: what arrives, by which way, and what is left afterwards.

mod support;

use plumb_kv::transfer::{Refusal, Transport, Transports};
use plumb_kv::{ChainHash, transfer};
use support::peer::{Peer, Settings};
use support::{TOKENS, UNTOUCHED, by, check, decode, eventually, pattern, remote, shape, targets};

#[test]
fn as_a_peer() {
    support::peer::run_if_started_as_one();
}

#[test]
fn both_ways_bring_every_byte_and_release_the_lease() {
    let mut peer = Peer::start(&Settings::default());
    let mut lease = 0;
    for (transports, transport) in
        [(Transports::Shm, Transport::Shm), (Transports::Tcp, Transport::Tcp)]
    {
        for checksum in [false, true] {
            let decode = decode("kv-test-both", shape(4096, false), &[&peer.address], |o| {
                o.transports = transports;
                o.checksum = checksum;
            });
            for (blocks, first) in [(1, 0), (7, 0), (200, 0), (7, 3), (5, 5)] {
                let id = peer.grant(blocks);
                let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
                let into = targets(&decode.pool, blocks - first);
                let pulled = claim.pull(first as u32, into).wait().unwrap();
                assert_eq!((pulled.transport, pulled.whole), (transport, true));
                assert_eq!(pulled.bytes, (blocks - first) as u64 * 3 * 4096);
                for (at, block) in pulled.blocks.iter().enumerate() {
                    check(block, 0..3 * 4096, |word| pattern(lease, first + at, word));
                }
                lease += 1;
                eventually("the peer frees its blocks", || {
                    let counts = peer.counts();
                    (counts.used, counts.leases, counts.released) == (0, 0, lease)
                });
            }
            assert_eq!(decode.puller.counts().pulls(transport), 5);
            assert_eq!(decode.puller.counts().bytes(transport), (1 + 7 + 200 + 4) * 3 * 4096);
        }
    }
    assert_eq!(peer.counts().refused.values().sum::<u64>(), 0);
}

#[test]
fn a_peers_pool_is_mapped_once_and_named() {
    let pool_name = "kv-pool-prefill-7".to_owned();
    let mut peer = Peer::start(&Settings { pool_name, ..Settings::default() });
    let decode =
        decode("kv-test-named", shape(4096, false), &[&peer.address], by(Transports::Auto));
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("/memfd:plumb-kv-pool-prefill-7")).count()
    };
    let listed = format!("peer-kv-pool-{}", peer.address);
    for _ in 0..3 {
        let id = peer.grant(2);
        let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
        claim.pull(0, targets(&decode.pool, 2)).wait().unwrap();
        assert_eq!(mapped(), 1);
        assert_eq!(plumb_region::all().iter().filter(|e| e.name == listed).count(), 1);
    }
    drop(decode);
    assert_eq!(mapped(), 0);
}

#[test]
fn a_window_moves_only_what_will_be_read() {
    let mut peer = Peer::start(&Settings { windowed: true, ..Settings::default() });
    for transports in [Transports::Shm, Transports::Tcp] {
        let decode = decode("kv-test-window", shape(4096, true), &[&peer.address], by(transports));
        let lease = peer.counts().released;
        let id = peer.grant(10);
        let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
        let pulled = claim.pull(0, targets(&decode.pool, 10)).wait().unwrap();
        // The query at 160 reads keys from 121 on: blocks 7, 8 and 9 of the middle layer.
        assert_eq!(pulled.bytes, (10 * 2 + 3) * 4096);
        assert!(!pulled.whole);
        for (at, block) in pulled.blocks.iter().enumerate() {
            let sent = |word: usize| pattern(lease, at, word);
            check(block, 0..4096, sent);
            check(block, 4096..8192, |word| if at < 7 { UNTOUCHED } else { sent(word) });
            check(block, 8192..12288, sent);
        }
        let hash = ChainHash::root(b"").next(&[0; TOKENS]);
        assert!(!decode.pool.publish(&pulled.blocks[0], hash), "not fit for another sequence");
        assert!(decode.pool.publish(&pulled.blocks[9], hash));
        eventually("the lease is released", || peer.counts().leases == 0);
    }
}

#[test]
fn auto_takes_tcp_where_memory_is_not_shared_and_shm_alone_fails() {
    let mut peer = Peer::start(&Settings { tcp_only: true, ..Settings::default() });
    let auto = decode("kv-test-auto", shape(4096, false), &[&peer.address], by(Transports::Auto));
    let id = peer.grant(3);
    let claim = auto.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    let pulled = claim.pull(0, targets(&auto.pool, 3)).wait().unwrap();
    assert_eq!(pulled.transport, Transport::Tcp);

    let shm = decode("kv-test-shm", shape(4096, false), &[&peer.address], by(Transports::Shm));
    let id = peer.grant(3);
    let claim = shm.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    let error = claim.pull(0, targets(&shm.pool, 3)).wait().unwrap_err();
    assert!(matches!(error, transfer::PullError::NoSharedMemory { .. }), "{error}");
    assert_eq!(shm.pool.counts().used, 0);
    assert!(peer.counts().refused(Refusal::NoSharedMemory) >= 1);
    eventually("a failed pull gives the lease back", || peer.counts().leases == 0);
}
