//! Who is refused, with which reason, and that it is counted.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use plumb_kv::transfer::{Claim, PullError, Refusal, Transports};
use support::peer::{Peer, Settings};
use support::{Decode, by, decode, eventually, remote, shape, targets};

#[test]
fn as_a_peer() {
    support::peer::run_if_started_as_one();
}

fn fails(decode: &Decode, claim: Claim, first: u32, blocks: usize) -> PullError {
    let error = claim.pull(first, targets(&decode.pool, blocks)).wait().unwrap_err();
    assert_eq!(decode.pool.counts().used, 0, "a failed pull returns its blocks: {error}");
    error
}

fn refusal(error: &PullError) -> Option<Refusal> {
    match error {
        PullError::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    }
}

#[test]
fn guesses_replays_and_too_many_blocks_are_refused_and_counted() {
    let mut peer = Peer::start(&Settings::default());
    for (round, transports) in [(1, Transports::Shm), (2, Transports::Tcp)] {
        let decode = decode("kv-test-guess", shape(4096, false), &[&peer.address], by(transports));
        let address = peer.address.clone();
        let claim = |id: &str| decode.puller.claim(remote(&address, "engine-1", id)).unwrap();

        let error = fails(&decode, claim("cmpl-0-0-00000000"), 0, 1);
        assert_eq!(refusal(&error), Some(Refusal::UnknownLease), "{error}");

        let id = peer.grant(4);
        claim(&id).pull(0, targets(&decode.pool, 4)).wait().unwrap();
        eventually("released", || peer.counts().leases == 0);
        let error = fails(&decode, claim(&id), 0, 4);
        assert_eq!(refusal(&error), Some(Refusal::EndedLease), "{error}");

        for (first, blocks) in [(0, 5), (4, 1), (u32::MAX, 1)] {
            let id = peer.grant(4);
            let error = fails(&decode, claim(&id), first, blocks);
            assert_eq!(refusal(&error), Some(Refusal::OutOfRange), "{error}");
            eventually("a failed pull gives the lease back", || peer.counts().leases == 0);
        }
        let id = peer.grant(4);
        assert_eq!(peer.delete(&id), "Ok(())");
        let error = fails(&decode, claim(&id), 0, 4);
        assert_eq!(refusal(&error), Some(Refusal::EndedLease), "{error}");

        let counts = peer.counts();
        assert_eq!(counts.refused(Refusal::UnknownLease), round);
        assert_eq!(counts.refused(Refusal::EndedLease), 2 * round);
        assert_eq!(counts.refused(Refusal::OutOfRange), 3 * round);
        assert_eq!((counts.used, counts.leases), (0, 0));
        let failed: Vec<_> = decode.puller.counts().failed().filter(|(_, n)| *n > 0).collect();
        assert_eq!(failed, [("unknown_lease", 1), ("ended_lease", 2), ("out_of_range", 3)]);
    }
}

#[test]
fn a_peer_that_we_were_not_given_is_never_contacted() {
    let mut peer = Peer::start(&Settings::default());
    let id = peer.grant(1);
    let other = "127.0.0.1:1".parse().unwrap();
    let decode = decode("kv-test-given", shape(4096, false), &[&other], |_| ());
    let error = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap_err();
    assert!(matches!(error, PullError::NotAllowed(_)), "{error}");
    assert!(error.to_string().contains(&peer.address.to_string()), "{error}");
    assert_eq!((peer.counts().connections, peer.counts().leases), (0, 1));

    let claim = decode.puller.claim(remote(&other, "engine-1", &id)).unwrap();
    let error = fails(&decode, claim, 0, 1);
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
}

#[test]
fn a_foreign_host_is_refused_before_it_can_speak() {
    let allow = vec!["10.11.12.13".parse().unwrap()];
    let mut peer = Peer::start(&Settings { allow, ..Settings::default() });
    let decode = decode("kv-test-foreign", shape(4096, false), &[&peer.address], |_| ());
    let id = peer.grant(1);
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    let error = fails(&decode, claim, 0, 1);
    let refused = refusal(&error) == Some(Refusal::ForeignHost);
    // The reset of the closed connection may overtake the reason.
    assert!(refused || matches!(error, PullError::Lost { .. }), "{error}");
    assert!(peer.counts().refused(Refusal::ForeignHost) >= 1);

    let mut stranger = TcpStream::connect(peer.address.to_string()).unwrap();
    let mut said = Vec::new();
    stranger.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("this address is not allowed"), "{said:?}");
}

#[test]
fn another_model_is_refused_naming_both_values() {
    let dtype = "f32".to_owned();
    let mut peer = Peer::start(&Settings { dtype, ..Settings::default() });
    let id = peer.grant(1);
    let dtype = decode("kv-test-dtype", shape(4096, false), &[&peer.address], |_| ());
    let claim = dtype.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    let error = fails(&dtype, claim, 0, 1);
    assert_eq!(refusal(&error), Some(Refusal::Identity), "{error}");
    let message = error.to_string();
    assert!(message.contains("dtype differs: ours f32, the peer's f16"), "{message}");

    let bytes = decode("kv-test-bytes", shape(8192, false), &[&peer.address], |o| {
        o.identity.dtype = "f32".to_owned();
    });
    let claim = bytes.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    let message = fails(&bytes, claim, 0, 1).to_string();
    assert!(message.contains("bytes a block differs: ours 12288, the peer's 24576"), "{message}");
    assert!(peer.counts().refused(Refusal::Identity) >= 2);
}

#[test]
fn a_restarted_peer_is_a_new_peer() {
    let mut peer = Peer::start(&Settings::default());
    let decode = decode("kv-test-stale", shape(4096, false), &[&peer.address], by(Transports::Shm));
    let id = peer.grant(1);
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    claim.pull(0, targets(&decode.pool, 1)).wait().unwrap();

    let stale = peer.grant(1);
    peer.kill();
    let bind = peer.address.to_string();
    let engine_id = "engine-2".to_owned();
    let mut successor = Peer::start(&Settings { bind, engine_id, ..Settings::default() });
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &stale)).unwrap();
    let error = fails(&decode, claim, 0, 1);
    assert_eq!(refusal(&error), Some(Refusal::StaleEngine), "{error}");
    let message = error.to_string();
    assert!(message.contains("engine-1") && message.contains("engine-2"), "{message}");

    // The successor's pool is another memory: what is pulled from it must be its own.
    successor.grant(1);
    let id = successor.grant(2);
    let claim = decode.puller.claim(remote(&peer.address, "engine-2", &id)).unwrap();
    let pulled = claim.pull(0, targets(&decode.pool, 2)).wait().unwrap();
    for (at, block) in pulled.blocks.iter().enumerate() {
        support::check(block, 0..12288, |word| support::pattern(1, at, word));
    }
}

#[test]
fn what_is_not_our_protocol_is_refused_and_harms_nobody() {
    let mut peer = Peer::start(&Settings::default());
    let frame = |kind: u8, declared: u32, payload: &[u8]| {
        [&b"PK\x01"[..], &[kind], &declared.to_le_bytes(), payload].concat()
    };
    let garbage = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 4096],
        frame(1, u32::MAX, b""),
        frame(1, 4, b"null"),
        frame(1, 13, br#"{"ask":"map"}"#),
        frame(1, 15, br#"{"ask":"hello"}"#),
        frame(2, 4, b"data"),
        frame(9, 0, b""),
    ];
    for bytes in &garbage {
        let mut stranger = TcpStream::connect(peer.address.to_string()).unwrap();
        stranger.write_all(bytes).unwrap();
        // The end comes as a close or, with bytes unread, as a reset: not as a hang.
        stranger.read_to_end(&mut Vec::new()).ok();
    }
    let mut counts = peer.counts();
    eventually("strangers are gone", || {
        counts = peer.counts();
        counts.connections == 0
    });
    assert_eq!(counts.refused(Refusal::Malformed), garbage.len() as u64);

    let decode = decode("kv-test-after", shape(4096, false), &[&peer.address], |_| ());
    let id = peer.grant(1);
    let claim = decode.puller.claim(remote(&peer.address, "engine-1", &id)).unwrap();
    claim.pull(0, targets(&decode.pool, 1)).wait().unwrap();
}
