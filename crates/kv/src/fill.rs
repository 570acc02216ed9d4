//! Taking a pool's memory: the first of it at once, the rest while others already use it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::{Error, Pool};

/// What a pool has when it is handed over: some hundred tokens, in a few milliseconds.
const FIRST: usize = 8 << 20;
/// What is taken at once, under the kernel's lock on the address space, in a fraction of a millisecond,
/// and then made one huge page.
const PIECE: usize = 2 << 20;

/// The rest of a pool's memory, still to be taken.
#[derive(Debug)]
#[must_use = "a pool that is not filled is short of memory in the middle of a request"]
pub struct Fill {
    pool: Weak<Pool>,
    from: usize,
}

impl Fill {
    pub(crate) fn begin(pool: &Arc<Pool>) -> Result<Self, Error> {
        pool.region().populate(0..FIRST)?;
        Ok(Self { pool: Arc::downgrade(pool), from: FIRST })
    }

    /// Takes it all, block after block in the order in which a new pool hands them out. Ends early if
    /// the pool is dropped.
    ///
    /// # Errors
    /// Memory is short. What was taken stays.
    pub fn run(mut self) -> Result<(), Error> {
        while let Some(pool) = self.pool.upgrade() {
            let region = pool.region();
            if self.from == FIRST {
                // Nobody waits for it here.
                region.collapse(0..FIRST);
            }
            if self.from >= region.len() {
                pool.filled.store(true, Ordering::Relaxed);
                break;
            }
            let piece = self.from..self.from + PIECE;
            region.populate(piece.clone())?;
            region.collapse(piece);
            self.from += PIECE;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockShape, LayerShape};

    fn begun() -> (Arc<Pool>, Fill) {
        let layers = vec![LayerShape { bytes: 1 << 20, window: None }];
        Pool::begin("kv-test-fill", BlockShape { layers, tokens: 16 }, 21).unwrap()
    }

    /// Blocks whose memory is resident, as the kernel says through the descriptor.
    fn filled(pool: &Pool) -> i64 {
        rustix::fs::fstat(pool.region().fd()).unwrap().st_blocks * 512 / (1 << 20)
    }

    #[test]
    fn the_first_blocks_are_filled_and_handed_out_first() {
        let (pool, fill) = begun();
        assert_eq!(filled(&pool), 8);
        let blocks = pool.allocate(8).unwrap();
        assert!(blocks.iter().all(|block| block.id().0 < 8), "{blocks:?}");
        assert_eq!(pool.counts().free, 13);
        assert!(!pool.is_filled());
        fill.run().unwrap();
        assert_eq!(filled(&pool), 21);
        assert!(pool.is_filled());
    }

    #[test]
    fn a_pool_that_is_gone_is_not_filled() {
        let (pool, fill) = begun();
        drop(pool);
        fill.run().unwrap();
    }
}
