//! One sequence: its tokens, and which of them its blocks hold.

use std::sync::Arc;

use plumb_kv::{Block, BlockId, ChainHash, OutOfBlocks, Pool};

use super::Left;

/// One of the answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId {
    /// The request.
    pub request: u64,
    /// 0 to `n` − 1.
    pub index: u32,
}

/// A sequence as it arrives.
#[derive(Debug)]
pub struct NewSequence<T> {
    /// Its name.
    pub id: SeqId,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Keeps cached prefixes of one tenant from another.
    pub salt: Arc<[u8]>,
    /// How many siblings will be forked off once the prompt is computed.
    pub siblings: u32,
    /// Whether every token of the prompt needs its logits.
    pub all_rows: bool,
    /// How many tokens of the prompt a peer holds, if one does.
    pub remote_tokens: Option<usize>,
    /// What the caller keeps with it.
    pub payload: T,
}

/// A sequence. Its blocks return to the pool when it is dropped.
#[derive(Debug)]
pub struct Sequence<T> {
    id: SeqId,
    arrival: u64,
    tokens: Vec<u32>,
    prompt: usize,
    computed: usize,
    blocks: Vec<Block>,
    ids: Vec<BlockId>,
    salt: Arc<[u8]>,
    /// The hash of the first `published` blocks.
    chain: ChainHash,
    published: usize,
    cached_blocks: usize,
    pulled_blocks: usize,
    siblings: u32,
    all_rows: bool,
    remote_tokens: Option<usize>,
    /// Blocks that the pull in flight fills, counted from the start.
    pull_end: usize,
    /// What the caller keeps with it.
    pub payload: T,
}

impl<T> Sequence<T> {
    pub(super) fn new(new: NewSequence<T>, arrival: u64) -> Self {
        Self {
            id: new.id,
            arrival,
            prompt: new.prompt.len(),
            tokens: new.prompt,
            computed: 0,
            blocks: Vec::new(),
            ids: Vec::new(),
            chain: ChainHash::root(&new.salt),
            salt: new.salt,
            published: 0,
            cached_blocks: 0,
            pulled_blocks: 0,
            siblings: new.siblings,
            all_rows: new.all_rows,
            remote_tokens: new.remote_tokens,
            pull_end: 0,
            payload: new.payload,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SeqId {
        self.id
    }

    /// Prompt and answer so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Length of the prompt.
    #[must_use]
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// How many tokens the blocks hold.
    #[must_use]
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// How many tokens are still to be computed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The block table.
    #[must_use]
    pub fn block_ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// Blocks that were found in the pool when it last started.
    #[must_use]
    pub fn cached_blocks(&self) -> usize {
        self.cached_blocks
    }

    /// Blocks that a peer filled when it last started.
    #[must_use]
    pub fn pulled_blocks(&self) -> usize {
        self.pulled_blocks
    }

    /// How many siblings are still to be forked off.
    #[must_use]
    pub fn siblings(&self) -> u32 {
        self.siblings
    }

    /// Prompt, answer so far, and what the caller keeps.
    pub fn parts_mut(&mut self) -> (&[u32], &[u32], &mut T) {
        let (prompt, output) = self.tokens.split_at(self.prompt);
        (prompt, output, &mut self.payload)
    }

    /// Appends a sampled token.
    pub fn push(&mut self, token: u32) {
        self.siblings = 0;
        self.tokens.push(token);
    }

    /// Older sequences first, siblings by index.
    pub(super) fn order(&self) -> (u64, u32) {
        (self.arrival, self.id.index)
    }

    /// Places that it takes among the running.
    pub(super) fn slots(&self) -> usize {
        1 + self.siblings as usize
    }

    pub(super) fn wants_all_rows(&self) -> bool {
        self.all_rows && self.computed < self.prompt
    }

    pub(super) fn wants_pull(&self) -> bool {
        self.remote_tokens.is_some()
    }

    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Whether the next token has no block yet.
    pub(super) fn needs_block(&self, pool: &Pool) -> bool {
        self.missing_blocks(pool) > 0
    }

    /// Blocks that all its tokens need beyond those it has.
    pub(super) fn missing_blocks(&self, pool: &Pool) -> usize {
        self.tokens.len().div_ceil(pool.shape().tokens) - self.blocks.len()
    }

    pub(super) fn add_blocks(&mut self, blocks: Vec<Block>) {
        self.ids.extend(blocks.iter().map(Block::id));
        self.blocks.extend(blocks);
    }

    /// Takes the blocks that already hold its start. The last token is always left to compute: its
    /// logits are needed, and its block must not be shared while it is written.
    pub(super) fn adopt_cached_prefix(&mut self, pool: &Arc<Pool>) {
        if self.all_rows {
            return;
        }
        let found = pool.cached_prefix(&self.tokens[..self.tokens.len() - 1], &self.salt);
        let block = pool.shape().tokens;
        self.published = found.len();
        self.cached_blocks = found.len();
        self.computed = found.len() * block;
        if let Some(hash) = ChainHash::of(&self.tokens[..self.computed], block, &self.salt).last() {
            self.chain = hash;
        }
        self.add_blocks(found);
    }

    /// The blocks that a peer should fill, if it holds this sequence's prompt. Asked once: a
    /// sequence that starts again computes everything itself.
    pub(super) fn begin_pull(&mut self, pool: &Pool) -> Option<Vec<Block>> {
        // A block that ends with the prompt is computed here: its last token's logits are needed,
        // and a pull may leave out what only earlier positions of a window would read.
        let remote = self.remote_tokens.take()?.min(self.prompt - 1);
        let full = remote / pool.shape().tokens;
        self.pull_end = full.max(self.cached_blocks);
        Some(self.blocks[self.cached_blocks..self.pull_end].to_vec())
    }

    pub(super) fn end_pull(&mut self, filled: bool, pool: &Pool) {
        if filled {
            self.computed = self.pull_end * pool.shape().tokens;
            self.pulled_blocks = self.pull_end - self.cached_blocks;
            self.publish(pool);
        }
    }

    /// The tokens up to `computed + count` are in the blocks now.
    pub(super) fn advance(&mut self, count: usize, pool: &Pool) {
        self.computed += count;
        self.publish(pool);
    }

    fn publish(&mut self, pool: &Pool) {
        let block = pool.shape().tokens;
        while (self.published + 1) * block <= self.computed {
            let tokens = &self.tokens[self.published * block..][..block];
            self.chain = self.chain.next(tokens);
            pool.publish(&self.blocks[self.published], self.chain);
            self.published += 1;
        }
    }

    pub(super) fn fork(&self, index: u32, payload: T) -> Self {
        Self {
            id: SeqId { index, ..self.id },
            arrival: self.arrival,
            tokens: self.tokens.clone(),
            prompt: self.prompt,
            computed: self.computed,
            blocks: self.blocks.clone(),
            ids: self.ids.clone(),
            salt: Arc::clone(&self.salt),
            chain: self.chain,
            published: self.published,
            cached_blocks: self.cached_blocks,
            pulled_blocks: self.pulled_blocks,
            siblings: 0,
            all_rows: false,
            remote_tokens: None,
            pull_end: 0,
            payload,
        }
    }

    /// Copies the last block if it is not full: it will be written.
    pub(super) fn own_last_block(&mut self, pool: &Arc<Pool>) -> Result<(), OutOfBlocks> {
        if self.computed.is_multiple_of(pool.shape().tokens) {
            return Ok(());
        }
        if let (Some(block), Some(id)) = (self.blocks.last_mut(), self.ids.last_mut()) {
            pool.make_unique(block)?;
            *id = block.id();
        }
        Ok(())
    }

    /// Gives all blocks back; everything must be computed again.
    pub(super) fn release(&mut self) {
        self.blocks.clear();
        self.ids.clear();
        self.computed = 0;
        self.published = 0;
        self.cached_blocks = 0;
        self.pulled_blocks = 0;
        self.chain = ChainHash::root(&self.salt);
    }

    pub(super) fn leave(self) -> Left<T> {
        Left {
            index: self.id.index,
            payload: self.payload,
            blocks: self.blocks,
            computed: self.computed,
        }
    }
}
