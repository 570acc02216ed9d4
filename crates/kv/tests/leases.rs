//! Leases on a clock that the tests hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_kv::{BlockShape, GrantError, LayerShape, Leases, NoLease, Pool, remote_request_id};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn pool() -> Arc<Pool> {
    let layers = vec![LayerShape { bytes: 64, window: None }];
    Pool::new("kv-test-leases", BlockShape { layers, tokens: 4 }, 16).unwrap()
}

#[test]
fn a_lease_keeps_its_blocks_until_its_time_is_over() {
    let (pool, leases, start) = (pool(), Leases::new(TTL), Instant::now());
    leases.grant("a", pool.allocate(5).unwrap(), start).unwrap();
    assert_eq!(pool.counts().used, 5);
    assert_eq!(leases.next_end(), Some(start + TTL));

    assert_eq!(leases.expire(start + TTL - SECOND), 0);
    leases.extend("a", start + TTL - SECOND).unwrap();
    assert_eq!(leases.expire(start + TTL), 0, "a heartbeat came in time");

    let end = start + TTL - SECOND + TTL;
    assert_eq!(leases.extend("a", end), Err(NoLease::Ended), "too late, though not swept yet");
    assert_eq!(leases.expire(end), 1);
    assert_eq!(pool.counts().used, 0);
    let counts = leases.counts();
    assert_eq!((counts.granted_total, counts.expired_total, counts.released_total), (1, 1, 0));
}

#[test]
fn a_heartbeat_that_comes_late_takes_no_time_away() {
    let (pool, leases, start) = (pool(), Leases::new(TTL), Instant::now());
    leases.grant("a", pool.allocate(1).unwrap(), start + SECOND).unwrap();
    leases.extend("a", start).unwrap();
    assert_eq!(leases.next_end(), Some(start + SECOND + TTL));
}

#[test]
fn a_pinned_block_outlives_its_lease_until_the_pin_is_gone() {
    let (pool, leases, start) = (pool(), Leases::new(TTL), Instant::now());
    leases.grant("a", pool.allocate(3).unwrap(), start).unwrap();
    let pin = leases.pin("a", start).unwrap();
    leases.release("a").unwrap();
    assert_eq!((leases.counts().leases, pool.counts().used), (0, 3));
    drop(pin);
    assert_eq!(pool.counts().used, 0);
}

#[test]
fn guesses_and_replays_are_told_apart_and_names_are_used_once() {
    let (pool, leases, now) = (pool(), Leases::new(TTL), Instant::now());
    let id = remote_request_id("cmpl-1-0");
    assert_eq!(leases.pin(&id, now).unwrap_err(), NoLease::Unknown);
    leases.grant(&id, pool.allocate(1).unwrap(), now).unwrap();
    assert_eq!(leases.grant(&id, Vec::new(), now), Err(GrantError::Taken));
    leases.release(&id).unwrap();
    assert_eq!(leases.release(&id), Err(NoLease::Ended));
    assert_eq!(leases.pin(&id, now).unwrap_err(), NoLease::Ended);
    assert_eq!(leases.grant(&id, pool.allocate(1).unwrap(), now), Err(GrantError::Taken));
    assert_eq!(pool.counts().used, 0, "a refused grant keeps nothing");
    assert_eq!(leases.grant(&"x".repeat(513), Vec::new(), now), Err(GrantError::LongId));
}

#[test]
fn waiting_and_remembered_leases_are_bounded() {
    let (leases, now) = (Leases::new(TTL), Instant::now());
    let granted = (0..).take_while(|n| leases.grant(&n.to_string(), Vec::new(), now).is_ok());
    assert_eq!(granted.count(), 16_384);
    assert_eq!(leases.grant("more", Vec::new(), now), Err(GrantError::TooMany));
    assert_eq!(leases.expire(now + TTL), 16_384);
    let remembered = (0..16_384).filter(|n| leases.release(&n.to_string()) == Err(NoLease::Ended));
    assert_eq!(remembered.count(), 4_096);
}

proptest! {
    #[test]
    fn whatever_happens_every_lease_ends_once_and_every_block_comes_back(
        actions in proptest::collection::vec((0..4usize, 0..8usize, 0..20u64), 1..80)
    ) {
        let (pool, leases, mut now) = (pool(), Leases::new(TTL), Instant::now());
        let mut names = 0;
        for (action, at, seconds) in actions {
            let name = (at % (names + 1)).to_string();
            match action {
                0 => if let Ok(blocks) = pool.allocate(at) {
                    leases.grant(&names.to_string(), blocks, now).unwrap();
                    names += 1;
                },
                1 => drop(leases.extend(&name, now)),
                2 => drop(leases.release(&name)),
                _ => {
                    now += SECOND * seconds as u32;
                    leases.expire(now);
                }
            }
            let counts = leases.counts();
            prop_assert_eq!(counts.blocks, pool.counts().used);
            prop_assert_eq!(
                counts.granted_total,
                counts.released_total + counts.expired_total + counts.leases as u64
            );
        }
        leases.expire(now + TTL);
        prop_assert_eq!((leases.counts().leases, pool.counts().used), (0, 0));
    }
}
