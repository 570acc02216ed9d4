//! Pools: runs of blocks of one size within an arena.

use std::time::Instant;

use super::Arena;
use crate::{ReadMemory, Residency};

/// Resident bytes of arenas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of live blocks.
    pub in_use: u64,
    /// How many blocks live.
    pub blocks: u64,
    /// Whether every pool that was carved agreed with itself. Else the split is not certain.
    pub certain: bool,
}

/// What a pool's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Live blocks.
    pub live: u32,
    /// Size of each block.
    pub block: u64,
    /// The first free block, linked by its first word; 0 for none.
    pub free_block: u64,
    /// How far blocks were carved, in bytes from the pool's start.
    pub carved: u32,
}

/// `struct pool_header`: count, free block, next, previous, arena's index, size class, next and last
/// offset.
const HEADER: usize = 48;
/// Where the first block of a pool begins, in bytes.
pub const POOL_HEADER: u64 = HEADER as u64;
const ALIGNMENT: u64 = 16;
/// `SMALL_REQUEST_THRESHOLD / ALIGNMENT`.
const CLASSES: u32 = 32;
/// A pool in a hundred may be caught in the middle of a change.
const TORN_IN: u64 = 100;

/// Adds up the live blocks of all arenas.
pub fn usage(
    memory: &impl ReadMemory,
    arenas: &[Arena],
    residency: &Residency,
    until: Instant,
) -> Usage {
    let mut usage = Usage { certain: true, ..Usage::default() };
    let (mut pools, mut torn) = (0u64, 0u64);
    for arena in arenas {
        if Instant::now() > until {
            usage.certain = false;
            return usage;
        }
        let first = arena.range.start.next_multiple_of(arena.pool_size);
        let addresses: Vec<u64> = (first..arena.fresh)
            .step_by(arena.pool_size as usize)
            .filter(|&pool| residency.contains(pool))
            .collect();
        let mut bytes = vec![0; addresses.len() * HEADER];
        memory.read_scattered(&addresses, HEADER, &mut bytes);
        for (&at, header) in addresses.iter().zip(bytes.chunks_exact(HEADER)) {
            pools += 1;
            match parse(header, arena) {
                Some(pool) => {
                    // Part of it may be swapped out.
                    let resident = residency.bytes_in(&(at..at + arena.pool_size));
                    usage.in_use += (u64::from(pool.live) * pool.block).min(resident);
                    usage.blocks += u64::from(pool.live);
                }
                None => torn += 1,
            }
        }
    }
    usage.certain = torn * TORN_IN <= pools.max(TORN_IN);
    usage
}

/// The header of the pool at `address`.
pub fn pool_at(memory: &impl ReadMemory, arena: &Arena, address: u64) -> Option<Pool> {
    let mut header = [0; HEADER];
    memory.read_exact(address, &mut header)?;
    parse(&header, arena)
}

/// The pool that begins with this head, in whichever arena.
pub fn pool_of(header: &[u8], pool_size: u64) -> Option<Pool> {
    let index = u32::from_le_bytes(*header.get(32..)?.first_chunk()?);
    // One arena in so many, at the most that an array holds.
    const ARENAS: u32 = 1 << 22;
    let arena = Arena { range: 0..0, index, fresh: 0, pool_size };
    (header.len() >= HEADER && index < ARENAS).then(|| parse(header, &arena))?
}

fn parse(header: &[u8], arena: &Arena) -> Option<Pool> {
    let words = crate::memory::words(header);
    let (live, index, class) = (words[0] as u32, words[4] as u32, (words[4] >> 32) as u32);
    let carved = words[5] as u32;
    if live == 0 {
        // A freed pool keeps its old header; its class may mean nothing.
        return Some(Pool { live: 0, block: ALIGNMENT, free_block: 0, carved });
    }
    let block = u64::from(class.checked_add(1)?) * ALIGNMENT;
    let fits = index == arena.index
        && class < CLASSES
        && u64::from(live) * block + HEADER as u64 <= arena.pool_size
        && u64::from(carved) <= arena.pool_size + block;
    fits.then_some(Pool { live, block, free_block: words[1], carved })
}
