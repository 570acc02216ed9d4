//! A counted reference to a block.

use std::fmt;
use std::sync::Arc;

use crate::Pool;

/// A block's place in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// A counted reference to a block: cloning shares the block, dropping the last one returns it.
pub struct Block {
    pool: Arc<Pool>,
    id: BlockId,
}

impl Block {
    /// Takes over a reference that the pool has already counted.
    pub(crate) fn counted(pool: Arc<Pool>, id: u32) -> Self {
        Self { pool, id: BlockId(id) }
    }

    /// The block's place in its pool.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Whether it was pulled without the layers that its own sequence does not need.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.pool.state.lock().is_partial(self.id.0)
    }

    /// Says so.
    pub(crate) fn mark_partial(&self) {
        self.pool.state.lock().mark_partial(self.id.0);
    }

    /// The pool it belongs to.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.pool.state.lock().share(self.id.0);
        Self { pool: Arc::clone(&self.pool), id: self.id }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.state.lock().give_back(self.id.0);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({})", self.id.0)
    }
}
