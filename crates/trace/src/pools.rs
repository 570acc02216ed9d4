//! Whether blocks that CPython's allocator gave are still in use, by its own pools.

use std::collections::HashMap;

use plumb_target::python::{Arena, POOL_HEADER, Pool, find, interpreter, pool_at, pool_of};
use plumb_target::{Memory, Process, ReadMemory, images, maps};

use crate::samples::Fate;

/// How far into its block an object begins at most, in bytes: further in it is gone, and the pool has
/// blocks of another size now.
const HEAD_MAX: u64 = 32;

/// Where a process's pools are.
#[derive(Debug)]
pub struct Pools {
    memory: Memory,
    arenas: Vec<Arena>,
}

/// What of pools' blocks is free, each read once: for one look, since a block that is free now is given
/// again soon.
#[derive(Debug, Default)]
pub struct FreeBlocks(HashMap<u64, Option<(Pool, Free)>>);

impl Pools {
    /// Looks where a process's arenas are. `None` where it runs no CPython that can be read.
    pub fn of(process: &Process) -> Option<Self> {
        let (memory, mut arenas) = arenas(process)?;
        arenas.sort_by_key(|arena| arena.range.start);
        Some(Self { memory, arenas })
    }

    /// What became of a block, or of an object in it. One that lies in no arena was malloc's, which is
    /// accounted for by itself.
    pub fn fate(&self, address: u64, free: &mut FreeBlocks) -> Fate {
        let Some((at, pool)) = self.pool(address, free) else { return Fate::Mapped };
        let in_use = pool.as_ref().is_some_and(|(pool, free)| {
            let block = block(pool, at, address).filter(|b| address - b <= HEAD_MAX);
            block.is_some_and(|block| {
                pool.live > 0 && block - at < u64::from(pool.carved) && !free.has(block - at)
            })
        });
        if in_use { Fate::InUse } else { Fate::Freed }
    }

    /// The blocks in which these addresses lie: where each begins, and its size; `None` where there is none
    /// (any more). Pools of arenas that are younger than the last look are known by their heads alone.
    pub fn blocks(&self, addresses: &[u64]) -> Vec<Option<(u64, u64)>> {
        let Some(size) = self.arenas.first().map(|arena| arena.pool_size) else {
            return vec![None; addresses.len()];
        };
        let starts: Vec<u64> = addresses.iter().map(|address| address & !(size - 1)).collect();
        let mut heads = vec![0; starts.len() * POOL_HEADER as usize];
        self.memory.read_scattered(&starts, POOL_HEADER as usize, &mut heads);
        let heads = heads.chunks_exact(POOL_HEADER as usize);
        let within = |(&address, (at, head)): (&u64, (u64, &[u8]))| {
            let pool = pool_of(head, size).filter(|pool| pool.live > 0)?;
            let block = block(&pool, at, address).filter(|b| address - b <= HEAD_MAX)?;
            Some((block, pool.block))
        };
        addresses.iter().zip(starts.into_iter().zip(heads)).map(within).collect()
    }

    /// The memory of the process.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn pool<'a>(
        &self,
        address: u64,
        free: &'a mut FreeBlocks,
    ) -> Option<(u64, &'a Option<(Pool, Free)>)> {
        let at = self.arenas.partition_point(|arena| arena.range.end <= address);
        let arena = self.arenas.get(at).filter(|arena| arena.range.contains(&address))?;
        let at = address & !(arena.pool_size - 1);
        let pool = free.0.entry(at).or_insert_with(|| {
            let pool = pool_at(&self.memory, arena, at)?;
            let mut bytes = vec![0; arena.pool_size as usize];
            let got = self.memory.read_at(at, &mut bytes);
            let free = free_blocks(&pool, at, &bytes[..got]);
            Some((pool, free))
        });
        Some((at, pool))
    }
}

fn block(pool: &Pool, at: u64, address: u64) -> Option<u64> {
    let into = address.checked_sub(at)?.checked_sub(POOL_HEADER)?;
    Some(address - into.checked_rem(pool.block)?)
}

/// The arenas of a process's interpreter, as they come, and its memory.
pub(crate) fn arenas(process: &Process) -> Option<(Memory, Vec<Arena>)> {
    let maps = maps::read(process).ok()?;
    let memory = Memory::open(process).ok()?;
    let arenas = images(process, &maps).iter().find_map(|image| {
        let found = interpreter(image).filter(|i| !i.free_threaded)?;
        let data: Vec<_> = image.segments().filter(|s| s.write).map(|s| s.range).collect();
        find(&memory, &data, &maps, found.minor)
    })?;
    Some((memory, arenas))
}

/// Which blocks of a pool were given back, a bit for each place where one may begin.
#[derive(Debug, PartialEq, Eq)]
struct Free(Vec<u64>);

impl Free {
    /// Bytes between two places.
    const STEP: u64 = 16;

    fn has(&self, offset: u64) -> bool {
        let bit = offset / Self::STEP;
        self.0.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// Whether it was new, and lies in the pool.
    fn add(&mut self, offset: u64) -> bool {
        let bit = offset / Self::STEP;
        let Some(word) = self.0.get_mut((bit / 64) as usize) else { return false };
        let was = *word;
        *word |= 1 << (bit % 64);
        *word != was
    }
}

/// The blocks of the pool at `start` that were given back, by their links; a list that leads elsewhere, or
/// back, ends there.
fn free_blocks(pool: &Pool, start: u64, bytes: &[u8]) -> Free {
    let bits = bytes.len() as u64 / Free::STEP;
    let mut free = Free(vec![0; bits.div_ceil(64) as usize]);
    let mut at = pool.free_block;
    loop {
        let offset = at.checked_sub(start);
        let word = offset.and_then(|from| bytes.get(from as usize..)?.first_chunk());
        let (Some(offset), Some(word)) = (offset, word) else { return free };
        if !free.add(offset) {
            return free;
        }
        at = u64::from_le_bytes(*word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_free_blocks_is_followed_within_its_pool() {
        let mut pool = vec![0; 4096];
        pool[0x100..0x108].copy_from_slice(&0x1_0200u64.to_le_bytes());
        // A link to itself: a pool that is being changed.
        pool[0x200..0x208].copy_from_slice(&0x1_0200u64.to_le_bytes());
        let head = Pool { live: 3, block: 32, free_block: 0x1_0100, carved: 2048 };
        let free = free_blocks(&head, 0x1_0000, &pool);
        assert!(free.has(0x100) && free.has(0x200) && !free.has(0x110) && !free.has(1 << 20));
        let [first, second] = [0x1_0030, 0x1_0050];
        assert_eq!(block(&head, 0x1_0000, second), Some(second));
        assert_eq!(block(&head, 0x1_0000, second - 16), Some(first));
        assert_eq!(block(&head, 0x1_0000, 0x1_0010), None);
        let away = Pool { free_block: 0x9_0000, ..head };
        assert_eq!(free_blocks(&away, 0x1_0000, &pool).0.iter().sum::<u64>(), 0);
    }
}
