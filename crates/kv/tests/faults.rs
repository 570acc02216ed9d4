//! Death, slowness and second thoughts in the middle of a pull: nothing stays behind.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use plumb_kv::transfer::{PullError, Refusal, Transports};
use support::peer::{Peer, Settings};
use support::relay::Relay;
use support::{Decode, by, decode, eventually, remote, shape, targets};

#[test]
fn as_a_peer() {
    support::peer::run_if_started_as_one();
}

const LAYER: usize = 64 << 10;
const BLOCKS: usize = 100;
/// A point in the middle of the data of a pull of [`BLOCKS`] blocks by TCP.
const MIDDLE: usize = 3 * LAYER * BLOCKS / 2;

fn big() -> Settings {
    Settings { layer_bytes: LAYER, blocks: 2 * BLOCKS, ..Settings::default() }
}

fn decode_by_tcp(relay: &Relay) -> Decode {
    decode("kv-test-faults", shape(LAYER, false), &[&relay.address], by(Transports::Tcp))
}

/// Nothing left within the second that the design promises.
fn clean_within_a_second(decode: &Decode, peer: &mut Peer, since: Instant) {
    eventually("no block is left here", || decode.pool.counts().used == 0);
    eventually("no block and no lease is left there", || {
        let counts = peer.counts();
        (counts.used, counts.leases) == (0, 0)
    });
    assert!(since.elapsed() < Duration::from_secs(1), "took {:?}", since.elapsed());
}

#[test]
fn a_peer_killed_in_the_middle_is_an_error_and_no_block_is_lost() {
    let mut peer = Peer::start(&big());
    let relay = Relay::start(&peer.address, MIDDLE);
    let decode = decode_by_tcp(&relay);
    let id = peer.grant(BLOCKS);
    let claim = decode.puller.claim(remote(&relay.address, "engine-1", &id)).unwrap();
    let pulling = claim.pull(0, targets(&decode.pool, BLOCKS));
    relay.reached.recv().unwrap();
    assert_eq!(decode.pool.counts().used, BLOCKS);
    peer.kill();
    relay.open();
    let error = pulling.wait().unwrap_err();
    let gone = matches!(error, PullError::Lost { .. } | PullError::Unreachable { .. });
    assert!(gone, "{error}");
    assert_eq!(decode.pool.counts().used, 0);
}

#[test]
fn a_peer_killed_before_a_copy_is_confirmed_is_an_error() {
    let mut peer = Peer::start(&big());
    // Enough for welcome and socket, not for the grant of 100 block numbers.
    let relay = Relay::start(&peer.address, 600);
    let decode =
        decode("kv-test-unconfirmed", shape(LAYER, false), &[&relay.address], by(Transports::Shm));
    let id = peer.grant(BLOCKS);
    let claim = decode.puller.claim(remote(&relay.address, "engine-1", &id)).unwrap();
    let pulling = claim.pull(0, targets(&decode.pool, BLOCKS));
    relay.reached.recv().unwrap();
    peer.kill();
    relay.open();
    let error = pulling.wait().unwrap_err();
    assert!(!matches!(error, PullError::Timeout { .. }), "{error}");
    assert_eq!(decode.pool.counts().used, 0);
}

#[test]
fn a_pull_dropped_in_the_middle_returns_blocks_here_and_there() {
    let mut peer = Peer::start(&big());
    let before = peer.counts().descriptors;
    let relay = Relay::start(&peer.address, MIDDLE);
    let decode = decode_by_tcp(&relay);
    let id = peer.grant(BLOCKS);
    let claim = decode.puller.claim(remote(&relay.address, "engine-1", &id)).unwrap();
    let pulling = claim.pull(0, targets(&decode.pool, BLOCKS));
    relay.reached.recv().unwrap();
    let since = Instant::now();
    drop(pulling);
    clean_within_a_second(&decode, &mut peer, since);
    assert_eq!(peer.counts().released, 1, "told, not timed out");
    relay.open();
    drop(decode);
    eventually("no descriptor is left", || peer.counts().descriptors == before);
}

#[test]
fn a_pull_dropped_in_the_queue_returns_its_blocks_at_once() {
    let mut peer = Peer::start(&big());
    let relay = Relay::start(&peer.address, MIDDLE);
    let decode = decode_by_tcp(&relay);
    let ids = [peer.grant(BLOCKS), peer.grant(5)];
    let [first, second] =
        ids.map(|id| decode.puller.claim(remote(&relay.address, "engine-1", &id)).unwrap());
    let running = first.pull(0, targets(&decode.pool, BLOCKS));
    let queued = second.pull(0, targets(&decode.pool, 5));
    relay.reached.recv().unwrap();
    assert_eq!(decode.pool.counts().used, BLOCKS + 5);
    drop(queued);
    assert_eq!(decode.pool.counts().used, BLOCKS);
    relay.open();
    assert_eq!(running.wait().unwrap().blocks.len(), BLOCKS);
    eventually("both leases are released", || peer.counts().released == 2);
    assert_eq!(decode.pool.counts().used, 0);
}

#[test]
fn a_puller_dropped_in_the_middle_ends_its_pulls() {
    let mut peer = Peer::start(&big());
    let relay = Relay::start(&peer.address, MIDDLE);
    let Decode { pool, puller } = decode_by_tcp(&relay);
    let id = peer.grant(BLOCKS);
    let claim = puller.claim(remote(&relay.address, "engine-1", &id)).unwrap();
    let pulling = claim.pull(0, targets(&pool, BLOCKS));
    relay.reached.recv().unwrap();
    drop(puller);
    assert!(matches!(pulling.wait(), Err(PullError::Stopped)));
    assert_eq!(pool.counts().used, 0);
}

#[test]
fn a_claim_lives_by_heartbeats_and_ends_when_it_is_given_up() {
    let ttl_ms = 400;
    let mut peer = Peer::start(&Settings { ttl_ms, ..Settings::default() });
    let decode = decode("kv-test-beat", shape(4096, false), &[&peer.address], |o| {
        o.heartbeat = Duration::from_millis(50);
    });
    let id = peer.grant(3);
    let first_end = peer.counts().next_end_ms.unwrap();
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    eventually("the lease has outlived its time twice", || {
        peer.counts().next_end_ms.expect("alive") > first_end + 2 * ttl_ms
    });
    let since = Instant::now();
    drop(claim);
    clean_within_a_second(&decode, &mut peer, since);
    assert_eq!((peer.counts().released, peer.counts().expired), (1, 0));
}

#[test]
fn a_claim_given_up_after_its_lease_ended_keeps_no_other_from_being_given_back() {
    let mut peer = Peer::start(&Settings::default());
    let shape = shape(Settings::default().layer_bytes, false);
    let decode = decode("kv-test-given-up", shape, &[&peer.address], |_| {});
    let since = Instant::now();
    let ended = peer.grant(2);
    let other = peer.grant(2);
    let first = decode.puller.claim(remote(&peer.address, "engine-1", &ended)).unwrap();
    let second = decode.puller.claim(remote(&peer.address, "engine-1", &other)).unwrap();
    peer.delete(&ended);
    drop(first);
    drop(second);
    clean_within_a_second(&decode, &mut peer, since);
}

#[test]
fn what_nobody_pulls_comes_back_and_is_counted() {
    let mut peer = Peer::start(&Settings { ttl_ms: 100, ..Settings::default() });
    peer.grant(3);
    eventually("the lease expires", || peer.counts().expired == 1);
    assert_eq!((peer.counts().used, peer.counts().leases), (0, 0));
}

#[test]
fn thousands_of_connections_are_bounded_and_keep_no_peer_out() {
    let hello_ms = 60_000;
    let mut peer = Peer::start(&Settings { hello_ms, ..Settings::default() });
    let idle: Vec<TcpStream> =
        (0..2000).map(|_| TcpStream::connect(peer.address.to_string()).unwrap()).collect();
    let counts = peer.counts();
    assert!(counts.descriptors < 100, "{counts:?}");

    let decode = decode("kv-test-crowd", shape(4096, false), &[&peer.address], |_| ());
    let id = peer.grant(2);
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    claim.pull(0, targets(&decode.pool, 2)).wait().unwrap();
    let counts = peer.counts();
    assert!(counts.refused(Refusal::Busy) >= 1900, "{counts:?}");
    drop(idle);
    eventually("they are gone", || peer.counts().connections <= 1);
}

#[test]
fn who_is_silent_or_slow_is_cut_off() {
    let settings = Settings { hello_ms: 100, message_ms: 100, ..Settings::default() };
    let mut peer = Peer::start(&settings);
    let silent = TcpStream::connect(peer.address.to_string()).unwrap();
    let mut half = TcpStream::connect(peer.address.to_string()).unwrap();
    half.write_all(b"PK\x01").unwrap();
    for mut stranger in [silent, half] {
        let mut said = Vec::new();
        stranger.read_to_end(&mut said).unwrap();
        assert!(String::from_utf8_lossy(&said).contains("timeout"));
    }
    assert_eq!(peer.counts().refused(Refusal::Timeout), 2);

    // One that asks for much and does not read: the blocks are unpinned when it is cut off.
    // A second, for the reader's own messages must come in time on a busy machine too.
    let mut peer = Peer::start(&Settings { message_ms: 1000, ..big() });
    let relay = Relay::start(&peer.address, MIDDLE);
    let decode = decode_by_tcp(&relay);
    let id = peer.grant(BLOCKS);
    let claim = decode.puller.claim(remote(&relay.address, "engine-1", &id)).unwrap();
    let pulling = claim.pull(0, targets(&decode.pool, BLOCKS));
    eventually("the reader is cut off", || peer.counts().refused(Refusal::Timeout) == 1);
    assert_eq!(peer.delete(&id), "Ok(())");
    eventually("nothing keeps its blocks", || peer.counts().used == 0);
    relay.open();
    assert!(pulling.wait().is_err());
    assert_eq!(decode.pool.counts().used, 0);
}

#[test]
fn a_peer_that_never_answers_costs_a_bounded_time() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string().parse().unwrap();
    let decode = decode("kv-test-mute", shape(4096, false), &[&address], |o| {
        o.timeouts.message = Duration::from_millis(100);
    });
    let claim = decode.puller.claim(remote(&address, "engine-1", "cmpl-0-0")).unwrap();
    let error = claim.pull(0, targets(&decode.pool, 1)).wait().unwrap_err();
    assert!(matches!(error, PullError::Timeout { .. }), "{error}");
    assert_eq!(decode.pool.counts().used, 0);
}

#[test]
fn a_peer_that_answers_rubbish_is_an_error() {
    let liar = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = liar.local_addr().unwrap().to_string().parse().unwrap();
    std::thread::spawn(move || {
        for mut stream in liar.incoming().map_while(Result::ok) {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
        }
    });
    let decode = decode("kv-test-liar", shape(4096, false), &[&address], |_| ());
    let claim = decode.puller.claim(remote(&address, "engine-1", "cmpl-0-0")).unwrap();
    let error = claim.pull(0, targets(&decode.pool, 1)).wait().unwrap_err();
    let told = matches!(error, PullError::Protocol { .. } | PullError::Lost { .. });
    assert!(told, "{error}");
}
