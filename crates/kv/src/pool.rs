//! The pool: one region of memory, and who has which part of it.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use plumb_region::Region;

use crate::fill::Fill;
use crate::state::{Counts, State};
use crate::{Block, BlockId, BlockShape, ChainHash, ShapeError};

/// What kept a pool from existing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shape of its blocks.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Its size.
    #[error(
        "a pool of {blocks} blocks of {block_bytes} bytes: ask for 1 block up to 2^32 - 1, of at most isize::MAX bytes in all"
    )]
    Size {
        /// Blocks asked for.
        blocks: usize,
        /// Bytes a block.
        block_bytes: usize,
    },
    /// Its memory.
    #[error(transparent)]
    Region(#[from] plumb_region::Error),
}

/// More blocks were asked for than are free or cached; none was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of KV blocks: {wanted} wanted, {available} available of {blocks}")]
pub struct OutOfBlocks {
    /// Blocks asked for.
    pub wanted: usize,
    /// Blocks that could have been had: free and cached.
    pub available: usize,
    /// Blocks of the pool.
    pub blocks: usize,
}

/// A fixed number of equal blocks in one named region, mapped once.
#[derive(Debug)]
pub struct Pool {
    region: Region,
    shape: BlockShape,
    layer_offsets: Vec<usize>,
    block_bytes: usize,
    blocks: u32,
    pub(crate) filled: AtomicBool,
    pub(crate) state: Mutex<State>,
}

impl Pool {
    /// A pool of `blocks` blocks in a region named `plumb-NAME`; name it by its owner
    /// (`kv-pool-prefill-9101`), since peers that map it show that name too.
    ///
    /// # Errors
    /// A shape or size that cannot be, or memory that is short: the whole pool is taken here, so
    /// that it cannot be short in the middle of a request.
    pub fn new(name: &str, shape: BlockShape, blocks: usize) -> Result<Arc<Self>, Error> {
        let (pool, fill) = Self::begin(name, shape, blocks)?;
        fill.run()?;
        Ok(pool)
    }

    /// As [`new`](Self::new), but only the first blocks have their memory when this returns; the
    /// rest is [`Fill::run`]'s, on a thread that nobody waits for. Blocks can be used at once: they
    /// are handed out in the order in which they are filled, and far more slowly.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn begin(name: &str, shape: BlockShape, blocks: usize) -> Result<(Arc<Self>, Fill), Error> {
        let (layer_offsets, block_bytes) = shape.layout()?;
        let refused = || Error::Size { blocks, block_bytes };
        let bytes = block_bytes.checked_mul(blocks).ok_or_else(refused)?;
        let count = u32::try_from(blocks).map_err(|_| refused())?;
        if count == 0 || isize::try_from(bytes).is_err() {
            return Err(refused());
        }
        let region = Region::create(name, bytes)?;
        let state = Mutex::new(State::new(count));
        let filled = AtomicBool::new(false);
        let blocks = count;
        let pool =
            Arc::new(Self { region, shape, layer_offsets, block_bytes, blocks, filled, state });
        let fill = Fill::begin(&pool)?;
        Ok((pool, fill))
    }

    /// Whether it has all its memory.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    /// The shape of its blocks.
    #[must_use]
    pub fn shape(&self) -> &BlockShape {
        &self.shape
    }

    /// Its memory.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Where the blocks lie.
    #[must_use]
    pub fn view(&self) -> PoolView<'_> {
        PoolView {
            base: self.region.base(),
            block_bytes: self.block_bytes,
            blocks: self.blocks as usize,
            layer_offsets: &self.layer_offsets,
            pool: PhantomData,
        }
    }

    /// Blocks by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.lock().counts()
    }

    /// `n` blocks of undefined content, each with one reference; cached blocks that were left
    /// longest ago make room.
    ///
    /// # Errors
    /// [`OutOfBlocks`]; none is taken then.
    pub fn allocate(self: &Arc<Self>, n: usize) -> Result<Vec<Block>, OutOfBlocks> {
        let ids = self.state.lock().take(n)?;
        Ok(ids.into_iter().map(|id| Block::counted(Arc::clone(self), id)).collect())
    }

    /// The longest run of published blocks that hold the start of `tokens`; whole blocks only.
    ///
    /// An engine must compute at least one token to have logits: pass all tokens but the last.
    #[must_use]
    pub fn cached_prefix(self: &Arc<Self>, tokens: &[u32], salt: &[u8]) -> Vec<Block> {
        let mut found = Vec::new();
        // Hashing happens outside the lock: a step that drops a block must not wait for it.
        for hash in ChainHash::of(tokens, self.shape.tokens, salt) {
            let Some(id) = self.state.lock().find(&hash) else { break };
            found.push(Block::counted(Arc::clone(self), id));
        }
        if !found.is_empty() {
            self.state.lock().advance();
        }
        found
    }

    /// Makes a full block findable by [`cached_prefix`](Self::cached_prefix). Nobody may write it
    /// from now on.
    ///
    /// False, and nothing changes, if another block already holds this content, or if the block was
    /// pulled without the layers that its own sequence does not need.
    pub fn publish(&self, block: &Block, hash: ChainHash) -> bool {
        debug_assert!(std::ptr::eq(self, Arc::as_ptr(block.pool())), "a block of another pool");
        self.state.lock().publish(block.id().0, hash)
    }

    /// Before writing to a block that may be shared: leaves it as it is if this is the only
    /// reference, else replaces it by a copy of its content. A published block that is not shared is
    /// taken out of the index.
    ///
    /// # Errors
    /// [`OutOfBlocks`] if there is no room for the copy; the block is then as it was.
    pub fn make_unique(self: &Arc<Self>, block: &mut Block) -> Result<(), OutOfBlocks> {
        debug_assert!(std::ptr::eq(&raw const **self, Arc::as_ptr(block.pool())));
        let copy = {
            let mut state = self.state.lock();
            if state.is_unique(block.id().0) {
                state.withdraw(block.id().0);
                return Ok(());
            }
            let id = *state.take(1)?.first().expect("one was asked for");
            if state.is_partial(block.id().0) {
                state.mark_partial(id);
            }
            Block::counted(Arc::clone(self), id)
        };
        let view = self.view();
        // SAFETY: two different blocks of one pool, `block_bytes` each; `copy` is ours alone, and a
        // shared block is not written by anybody.
        unsafe {
            std::ptr::copy_nonoverlapping(
                view.block(block.id()).as_ptr(),
                view.block(copy.id()).as_ptr(),
                view.block_bytes,
            );
        }
        *block = copy;
        Ok(())
    }
}

/// Where a pool's blocks lie: what an engine needs to read and write them.
///
/// It gives pointers, not references: that a block being written belongs to one sequence, and that
/// a block being read is written by nobody, is the caller's duty.
#[derive(Clone, Copy, Debug)]
pub struct PoolView<'a> {
    /// The first byte of block 0.
    pub base: NonNull<u8>,
    /// Bytes from one block to the next.
    pub block_bytes: usize,
    /// Blocks in the pool.
    pub blocks: usize,
    layer_offsets: &'a [usize],
    pool: PhantomData<&'a Pool>,
}

// SAFETY: addresses and sizes; the pool that they belong to outlives `'a` and is Sync.
unsafe impl Send for PoolView<'_> {}
// SAFETY: as above.
unsafe impl Sync for PoolView<'_> {}

impl PoolView<'_> {
    /// Where a layer starts within a block.
    ///
    /// # Panics
    /// If the pool has no such layer.
    #[must_use]
    #[inline]
    pub fn layer_offset(&self, layer: usize) -> usize {
        self.layer_offsets[layer]
    }

    /// The first byte of a block, good for [`block_bytes`](Self::block_bytes) bytes.
    ///
    /// # Panics
    /// If the pool has no such block.
    #[must_use]
    #[inline]
    pub fn block(&self, id: BlockId) -> NonNull<u8> {
        let index = id.0 as usize;
        assert!(index < self.blocks, "block {index} of a pool of {}", self.blocks);
        // SAFETY: the block lies within the region, whose size is blocks * block_bytes.
        unsafe { self.base.add(index * self.block_bytes) }
    }

    /// The first byte of a layer within a block.
    ///
    /// # Panics
    /// If the pool has no such block or layer.
    #[must_use]
    #[inline]
    pub fn layer(&self, id: BlockId, layer: usize) -> NonNull<u8> {
        // SAFETY: every layer lies within its block.
        unsafe { self.block(id).add(self.layer_offset(layer)) }
    }
}
