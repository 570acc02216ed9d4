//! A serving instance in a process of its own: this test binary, started again as the peer.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod peer;
pub mod relay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_kv::transfer::{PeerAddress, Puller, PullerOptions, Remote, Transports};
use plumb_kv::{Block, BlockShape, Identity, LayerShape, Pool};

pub const TOKENS: usize = 16;

pub fn identity() -> Identity {
    Identity {
        model_digest: [7; 32],
        dtype: "f16".to_owned(),
        layers: 3,
        kv_heads: 2,
        head_dim: 64,
        block_tokens: TOKENS as u32,
        format_version: 1,
    }
}

/// Three layers; the second has a window of 40 tokens if `windowed`.
pub fn shape(layer_bytes: usize, windowed: bool) -> BlockShape {
    let layer = |window| LayerShape { bytes: layer_bytes, window };
    BlockShape {
        layers: vec![layer(None), layer(windowed.then_some(40)), layer(None)],
        tokens: TOKENS,
    }
}

/// What the peer writes into the `block`-th block of its `lease`-th lease, at word `at`.
pub fn pattern(lease: u64, block: usize, at: usize) -> u64 {
    (lease << 48 | (block as u64) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub fn fill(block: &Block, word: impl Fn(usize) -> u64) {
    let view = block.pool().view();
    for at in 0..view.block_bytes / 8 {
        // SAFETY: within a block that this thread alone uses, aligned to 64.
        unsafe { view.block(block.id()).cast::<u64>().add(at).write(word(at)) }
    }
}

/// Panics with the first word of `range` (in bytes) that is not `word`'s.
pub fn check(block: &Block, range: std::ops::Range<usize>, word: impl Fn(usize) -> u64) {
    let view = block.pool().view();
    for at in range.start / 8..range.end / 8 {
        // SAFETY: within a block whose pull has ended.
        let found = unsafe { view.block(block.id()).cast::<u64>().add(at).read() };
        assert_eq!(found, word(at), "word {at} of {block:?}");
    }
}

/// What a block holds before a pull.
pub const UNTOUCHED: u64 = 0x5555_5555_5555_5555;

/// Blocks to pull into, full of [`UNTOUCHED`].
pub fn targets(pool: &Arc<Pool>, n: usize) -> Vec<Block> {
    let blocks = pool.allocate(n).unwrap();
    blocks.iter().for_each(|block| fill(block, |_| UNTOUCHED));
    blocks
}

/// A decode instance's half, in this process.
pub struct Decode {
    pub pool: Arc<Pool>,
    pub puller: Puller,
}

pub fn decode(
    name: &str,
    shape: BlockShape,
    peers: &[&PeerAddress],
    change: impl FnOnce(&mut PullerOptions),
) -> Decode {
    let pool = Pool::new(name, shape, 512).unwrap();
    let mut options =
        PullerOptions::new(identity(), peers.iter().map(|&peer| peer.clone()).collect());
    change(&mut options);
    Decode { puller: Puller::new(Arc::clone(&pool), options), pool }
}

pub fn by(transports: Transports) -> impl FnOnce(&mut PullerOptions) {
    move |options| options.transports = transports
}

pub fn remote(peer: &PeerAddress, engine_id: &str, request_id: &str) -> Remote {
    let (engine_id, request_id) = (engine_id.to_owned(), request_id.to_owned());
    Remote { peer: peer.clone(), engine_id, request_id }
}

/// Waits until something is so; panics with `what` if it is not for 20 seconds.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < patience, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
