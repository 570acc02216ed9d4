//! The pool against a model: whatever is done, no block has two owners, none is lost, and a prefix
//! that is found holds what was written for it.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_kv::{Block, BlockId, BlockShape, ChainHash, LayerShape, Pool};
use proptest::prelude::*;

const BLOCKS: usize = 12;
const TOKENS: usize = 2;

fn pool(name: &str) -> Arc<Pool> {
    let layers = vec![LayerShape { bytes: 100, window: None }; 2];
    Pool::new(name, BlockShape { layers, tokens: TOKENS }, BLOCKS).unwrap()
}

fn write(pool: &Pool, id: BlockId, content: u64) {
    // SAFETY: a live block of at least 8 bytes, used by this thread only.
    unsafe { pool.view().block(id).cast::<u64>().write(content) }
}

fn read(pool: &Pool, id: BlockId) -> u64 {
    // SAFETY: as in `write`.
    unsafe { pool.view().block(id).cast::<u64>().read() }
}

#[derive(Clone, Debug)]
enum Action {
    Allocate(usize),
    Share(usize),
    Drop(usize),
    DropAll,
    /// A sequence over a small alphabet, so that prefixes meet.
    Run(Vec<u32>),
    MakeUnique(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..BLOCKS + 2).prop_map(Action::Allocate),
        (0..64usize).prop_map(Action::Share),
        (0..64usize).prop_map(Action::Drop),
        Just(Action::DropAll),
        proptest::collection::vec(0..2u32, 0..TOKENS * 5).prop_map(Action::Run),
        (0..64usize).prop_map(Action::MakeUnique),
    ]
}

/// What one has: references, and what was written through them.
struct Model {
    pool: Arc<Pool>,
    held: Vec<(Block, u64)>,
    written: u64,
}

impl Model {
    fn references(&self) -> HashMap<BlockId, usize> {
        let mut counts = HashMap::new();
        for (block, _) in &self.held {
            *counts.entry(block.id()).or_default() += 1;
        }
        counts
    }

    fn allocate(&mut self, n: usize) -> Option<Vec<usize>> {
        let before = self.pool.counts();
        let owned = self.references();
        let Ok(blocks) = self.pool.allocate(n) else {
            assert!(n > before.free + before.cached, "{n} refused at {before:?}");
            assert_eq!(self.pool.counts(), before, "a refusal takes nothing");
            return None;
        };
        assert_eq!(blocks.len(), n);
        let first = self.held.len();
        for block in blocks {
            assert!(!owned.contains_key(&block.id()), "{block:?} has an owner");
            self.written += 1;
            write(&self.pool, block.id(), self.written);
            self.held.push((block, self.written));
        }
        Some((first..self.held.len()).collect())
    }

    /// What a scheduler does: reuse the prefix, compute the rest, publish.
    fn run(&mut self, tokens: &[u32]) {
        let hashes: Vec<ChainHash> = ChainHash::of(tokens, TOKENS, b"salt").collect();
        let found = self.pool.cached_prefix(tokens, b"salt");
        assert!(found.len() <= hashes.len());
        assert!(self.pool.cached_prefix(tokens, b"another salt").is_empty());
        let (have, full) = (found.len(), hashes.len());
        for (block, tokens) in found.into_iter().zip(tokens.chunks(TOKENS)) {
            let content = read(&self.pool, block.id());
            // The last tokens are part of the content, so a wrong hit shows.
            assert_eq!(content >> 32, fingerprint(tokens), "{block:?} holds another's content");
            self.held.push((block, content));
        }
        let Some(new) = self.allocate(full - have) else { return };
        for (position, held) in (have..full).zip(new) {
            let block_tokens = &tokens[position * TOKENS..(position + 1) * TOKENS];
            let (block, content) = &mut self.held[held];
            *content |= fingerprint(block_tokens) << 32;
            write(&self.pool, block.id(), *content);
            // Refused where a child outlived its parent in the index.
            self.pool.publish(block, hashes[position]);
        }
    }

    fn make_unique(&mut self, at: usize) {
        let references = self.references();
        let (block, content) = &mut self.held[at];
        let shared = references[&block.id()] > 1;
        let before = block.id();
        if self.pool.make_unique(block).is_ok() {
            assert_eq!(shared, block.id() != before);
            assert!(!shared || !references.contains_key(&block.id()));
            assert_eq!(read(&self.pool, block.id()), *content, "the copy holds the content");
            self.written += 1;
            *content = self.written;
            write(&self.pool, block.id(), self.written);
        } else {
            assert!(shared && block.id() == before);
        }
    }

    fn check(&self) {
        let counts = self.pool.counts();
        assert_eq!(counts.free + counts.cached + counts.used, BLOCKS);
        assert_eq!(counts.used, self.references().len(), "referenced blocks are used, no others");
        for (block, content) in &self.held {
            assert_eq!(read(&self.pool, block.id()), *content, "{block:?} was written by another");
        }
    }
}

fn fingerprint(tokens: &[u32]) -> u64 {
    tokens.iter().fold(1, |sum, &token| sum * 3 + u64::from(token))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_block_has_two_owners_and_none_is_lost(
        actions in proptest::collection::vec(action(), 1..60)
    ) {
        let mut model = Model { pool: pool("kv-test-model"), held: Vec::new(), written: 0 };
        for action in actions {
            let at = |index: usize| (!model.held.is_empty()).then(|| index % model.held.len());
            match action {
                Action::Allocate(n) => drop(model.allocate(n)),
                Action::Share(index) => if let Some(at) = at(index) {
                    let shared = model.held[at].clone();
                    model.held.push(shared);
                },
                Action::Drop(index) => if let Some(at) = at(index) {
                    drop(model.held.swap_remove(at));
                },
                Action::DropAll => model.held.clear(),
                Action::Run(tokens) => model.run(&tokens),
                Action::MakeUnique(index) => if let Some(at) = at(index) {
                    model.make_unique(at);
                },
            }
            model.check();
        }
        model.held.clear();
        let counts = model.pool.counts();
        prop_assert_eq!((counts.used, counts.free + counts.cached), (0, BLOCKS));
        prop_assert!(model.pool.allocate(BLOCKS).is_ok(), "everything can be had again");
    }
}

#[test]
fn the_longest_unused_goes_first_and_children_before_parents() {
    let pool = pool("kv-test-lru");
    let tokens: Vec<u32> = (0..TOKENS as u32 * 8).collect();
    let run = |tokens: &[u32]| {
        let mut blocks = pool.cached_prefix(tokens, b"");
        let hashes: Vec<ChainHash> = ChainHash::of(tokens, TOKENS, b"").collect();
        let new = pool.allocate(hashes.len() - blocks.len()).unwrap();
        for (block, hash) in new.iter().zip(&hashes[blocks.len()..]) {
            assert!(pool.publish(block, *hash));
        }
        blocks.extend(new);
        blocks
    };
    let cached = |tokens: &[u32]| pool.cached_prefix(tokens, b"").len();

    drop(run(&tokens[..TOKENS * 6]));
    drop(run(&tokens[TOKENS..TOKENS * 5]));
    assert_eq!(pool.counts().cached, 10);

    // Two are free; three more must come from the older sequence's end.
    let held = pool.allocate(5).unwrap();
    assert_eq!(pool.counts().evicted_total, 3);
    assert_eq!(cached(&tokens[TOKENS..TOKENS * 5]), 4);
    assert_eq!(cached(&tokens[..TOKENS * 6]), 3);
    drop(held);
    assert_eq!((pool.counts().cached, pool.counts().free), (7, 5));
}

#[test]
fn the_first_of_two_equal_blocks_stays_the_one_that_is_found() {
    let pool = pool("kv-test-twice");
    let blocks = pool.allocate(2).unwrap();
    let hash = ChainHash::root(b"").next(&[1, 2]);
    assert!(pool.publish(&blocks[0], hash));
    assert!(!pool.publish(&blocks[1], hash));
    assert_eq!(pool.cached_prefix(&[1, 2], b"")[0].id(), blocks[0].id());
    drop(blocks);
    assert_eq!((pool.counts().cached, pool.counts().free), (1, BLOCKS - 1));
}
