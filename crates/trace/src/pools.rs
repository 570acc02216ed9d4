//! Whether blocks that CPython's allocator gave are still in use, by its own pools.

use std::collections::{HashMap, HashSet};

use plumb_target::python::{Arena, Pool, find, interpreter, pool_at};
use plumb_target::{Memory, Process, ReadMemory, images, maps};

use crate::samples::Fate;

/// What of a pool's blocks is free, each read once.
#[derive(Debug)]
pub struct Pools {
    memory: Memory,
    arenas: Vec<Arena>,
    known: HashMap<u64, Option<(Pool, HashSet<u64>)>>,
}

impl Pools {
    /// Looks where a process's arenas are. `None` where it runs no CPython that can be read.
    pub fn of(process: &Process) -> Option<Self> {
        let (memory, mut arenas) = arenas(process)?;
        arenas.sort_by_key(|arena| arena.range.start);
        Some(Self { memory, arenas, known: HashMap::new() })
    }

    /// What became of a block. One that lies in no arena was malloc's, which is accounted for by itself.
    pub fn fate(&mut self, address: u64) -> Fate {
        let at = self.arenas.partition_point(|arena| arena.range.end <= address);
        let arena = self.arenas.get(at).filter(|arena| arena.range.contains(&address));
        let Some(arena) = arena else { return Fate::Mapped };
        let at = address & !(arena.pool_size - 1);
        let memory = &self.memory;
        let pool = self.known.entry(at).or_insert_with(|| {
            let pool = pool_at(memory, arena, at)?;
            let mut bytes = vec![0; arena.pool_size as usize];
            let got = memory.read_at(at, &mut bytes);
            let free = free_blocks(&pool, at, &bytes[..got]);
            Some((pool, free))
        });
        let in_use = pool.as_ref().is_some_and(|(pool, free)| {
            pool.live > 0 && address - at < u64::from(pool.carved) && !free.contains(&address)
        });
        if in_use { Fate::InUse } else { Fate::Freed }
    }
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

/// The blocks of the pool at `start` that were given back, by their links; a list that leads elsewhere, or
/// back, ends there.
fn free_blocks(pool: &Pool, start: u64, bytes: &[u8]) -> HashSet<u64> {
    let mut free = HashSet::new();
    let mut at = pool.free_block;
    loop {
        let word = at.checked_sub(start).and_then(|from| bytes.get(from as usize..)?.first_chunk());
        let Some(word) = word else { return free };
        if !free.insert(at) {
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
        assert_eq!(free_blocks(&head, 0x1_0000, &pool), [0x1_0100, 0x1_0200].into());
        let away = Pool { free_block: 0x9_0000, ..head };
        assert_eq!(free_blocks(&away, 0x1_0000, &pool), [].into());
    }
}
