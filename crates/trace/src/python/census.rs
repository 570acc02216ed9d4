//! A census of Python objects by type, from outside, without stopping the target.
//!
//! Objects of up to 512 bytes lie in obmalloc's pools, whether the cycle collector tracks them or
//! not, and every object begins with its reference count and a pointer to its type. Memory that was
//! freed begins with a link, or with a count of 0, and raw memory with anything, which is rarely a
//! small count before the address of a type. A target that runs meanwhile moves a few objects under
//! our eyes: a census is a count of many, not an inventory. Larger objects are not in pools: of those
//! only what a list holds is added, by the list's own word.

use std::collections::HashMap;
use std::time::Instant;

use plumb_target::python::{Arena, pool_at};
use plumb_target::{Process, ReadMemory};

use crate::marks::is_count;
use crate::pools::arenas;

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub objects: u64,
    /// Bytes of their blocks, and of the arrays behind lists.
    pub bytes: u64,
}

/// The objects of one interpreter, by the name of their type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// By type.
    pub types: HashMap<String, Count>,
    /// One arena in how many was read; the counts are scaled.
    pub one_in: u64,
}

/// Arenas read at most, in bytes: a second of ours, none of the target's. Beyond it counts are scaled, and
/// the few large lists of a sample count too often or not at all.
const READ_MAX: u64 = 512 << 20;
/// Types told apart; a target may make any number.
const TYPES_MAX: usize = 20_000;
/// An object's own head: count and type.
const HEAD: u64 = 16;
/// Where an object may begin in its block: at once; behind the collector's links; behind those and
/// the pointers to its dictionary and weak references.
const BEGINNINGS: [usize; 3] = [0, 16, 32];
const NAME_MAX: usize = 200;

/// Counts the objects of a process's interpreter. `None` where it has none that can be read.
pub fn take(process: &Process, until: Instant) -> Option<Census> {
    let (memory, arenas) = arenas(process)?;
    Some(count(&memory, &arenas, until))
}

/// Counts the objects in these arenas.
pub fn count(memory: &impl ReadMemory, arenas: &[Arena], until: Instant) -> Census {
    let size = arenas.first().map_or(1, |a| (a.range.end - a.range.start).max(1));
    let most = (READ_MAX / size).max(1) as usize;
    let step = arenas.len().div_ceil(most).max(1);
    let mut types = Types::new(memory);
    let (mut read, mut bytes) = (0usize, Vec::new());
    // Spread over all of them, so that those read before time is up speak for the rest.
    let wanted = arenas.len().div_ceil(step);
    let spread = (0..wanted).map(|i| scattered(i, wanted) * step);
    for arena in spread.filter_map(|i| arenas.get(i)) {
        if Instant::now() > until {
            break;
        }
        read += 1;
        let first = arena.range.start.next_multiple_of(arena.pool_size);
        for pool in (first..arena.fresh.min(arena.range.end)).step_by(arena.pool_size as usize) {
            count_pool(arena, pool, &mut bytes, &mut types);
        }
    }
    let one_in = (arenas.len() as u64).div_ceil(read.max(1) as u64).max(1);
    let scaled = |n: u64| n * arenas.len() as u64 / read.max(1) as u64;
    let scaled = |c: Count| Count { objects: scaled(c.objects), bytes: scaled(c.bytes) };
    let counted = types.names.into_iter().zip(types.counts.into_iter().map(scaled));
    Census { types: counted.filter(|(_, count)| count.objects > 0).collect(), one_in }
}

/// A permutation of `0..n` whose beginnings lie evenly.
fn scattered(i: usize, n: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let about = (n as f64 * 0.618) as usize;
    let stride = (about.max(1)..=n).find(|s| divisor(*s, n) == 1).unwrap_or(1);
    i * stride % n
}

fn count_pool<M: ReadMemory>(
    arena: &Arena,
    at: u64,
    bytes: &mut Vec<u8>,
    types: &mut Types<'_, M>,
) {
    const HEADER: usize = 48;
    let Some(pool) = pool_at(types.memory, arena, at).filter(|p| p.live > 0) else { return };
    bytes.resize(arena.pool_size as usize, 0);
    let got = types.memory.read_at(at, bytes);
    let words = plumb_target::memory::words(&bytes[..got]);
    let block = pool.block as usize;
    let end = (pool.carved as usize).min(got);
    for start in (HEADER..end).step_by(block) {
        let object = |offset: usize| {
            let at = start + offset;
            let (count, kind) = (*words.get(at / 8)?, *words.get(at / 8 + 1)?);
            let fits = offset + HEAD as usize <= block && is_count(count);
            // Asking about a type that is none costs reads of the target: most words are no counts.
            if fits { Some((at, types.find(kind)?)) } else { None }
        };
        let Some((at, id)) = BEGINNINGS.into_iter().find_map(object) else { continue };
        let is_list = types.names[id] == "list";
        let behind = if is_list { words.get(at / 8 + 4).copied().unwrap_or(0) } else { 0 };
        let behind = if behind < 1 << 32 { behind * 8 } else { 0 };
        let sum = &mut types.counts[id];
        sum.objects += 1;
        sum.bytes += block as u64 + behind;
    }
}

/// The types that were met, by number, and what was counted of each.
struct Types<'a, M> {
    memory: &'a M,
    /// By address: which type, or that there is none.
    known: HashMap<u64, Option<usize>>,
    numbers: HashMap<String, usize>,
    names: Vec<String>,
    counts: Vec<Count>,
}

impl<'a, M: ReadMemory> Types<'a, M> {
    fn new(memory: &'a M) -> Self {
        let (known, numbers) = (HashMap::new(), HashMap::new());
        Self { memory, known, numbers, names: Vec::new(), counts: Vec::new() }
    }

    fn find(&mut self, address: u64) -> Option<usize> {
        if address < 1 << 16 || !address.is_multiple_of(8) || address >> 47 != 0 {
            return None;
        }
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        if self.known.len() > 4 * TYPES_MAX {
            self.known.clear();
        }
        let number = name_of_type(self.memory, address).and_then(|name| self.number(name));
        self.known.insert(address, number);
        number
    }

    fn number(&mut self, name: String) -> Option<usize> {
        if let Some(number) = self.numbers.get(&name) {
            return Some(*number);
        }
        let number = self.names.len();
        (number < TYPES_MAX).then(|| {
            self.names.push(name.clone());
            self.counts.push(Count::default());
            self.numbers.insert(name, number);
            number
        })
    }
}

/// The name of the type at an address: something whose own type is `type`, whose type is itself, or
/// a class of classes, whose type is that.
pub(crate) fn name_of_type(memory: &impl ReadMemory, address: u64) -> Option<String> {
    let kind_of = |at: u64| memory.u64_at(at.checked_add(8)?);
    let class = kind_of(address)?;
    let root = kind_of(class)?;
    if kind_of(root)? != root || !is_count(memory.u64_at(address)?) {
        return None;
    }
    let text = memory.u64_at(address.checked_add(24)?)?;
    let bytes = memory.c_string_at(text, NAME_MAX)?;
    let name = String::from_utf8(bytes).ok()?;
    let sound = !name.is_empty() && !name.chars().any(char::is_control);
    sound.then_some(name)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const PROGRAM: &str = "\
import sys
class Session:
    __slots__ = ('n', 'next')
    def __init__(self, n): self.n = n; self.next = self
kept = [Session(n) for n in range(30000)]
texts = ['text %d' % n for n in range(20000)]
blobs = [b'blob %d' % n for n in range(10000)]
print('ready', flush=True)
sys.stdin.read()
";

    #[test]
    fn objects_of_each_type_are_counted() {
        let mut python = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        let out = python.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("it is ready");
        let process = Process::open(python.id()).expect("it runs");
        let census = take(&process, Instant::now() + Duration::from_secs(10)).expect("CPython");
        drop(python.stdin.take());
        python.wait().expect("ours");
        let near = |name: &str, wanted: u64| {
            let n = census.types.get(name).map_or(0, |c| c.objects);
            assert!((wanted..wanted * 12 / 10 + 20_000).contains(&n), "{n} {name}, not {wanted}");
        };
        near("Session", 30_000);
        near("str", 20_000);
        near("bytes", 10_000);
        assert_eq!(census.one_in, 1);
    }

    /// Objects that the collector tracks begin with two links: none of them is asked about as a type.
    #[test]
    fn links_of_the_collector_are_not_read() {
        struct Links(Cell<usize>);

        impl ReadMemory for Links {
            fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
                self.0.set(self.0.get() + 1);
                for (at, word) in (address..).step_by(8).zip(out.chunks_exact_mut(8)) {
                    let header = [64, 0, 0, 0, 3 << 32, 4096];
                    let word_at = (at % 4096 / 8) as usize;
                    let link = 0x7f12_0000_0000 + at;
                    let value = header.get(word_at).copied().unwrap_or(link);
                    word.copy_from_slice(&u64::to_le_bytes(value));
                }
                out.len()
            }
        }

        let (start, pools) = (1 << 20, 8);
        let range = start..start + pools * 4096;
        let arena = Arena { fresh: range.end, range, index: 0, pool_size: 4096 };
        let memory = Links(Cell::new(0));
        let census = count(&memory, &[arena], Instant::now() + Duration::from_secs(5));
        assert!(census.types.is_empty());
        assert!(memory.0.get() <= 2 * pools as usize, "{} reads", memory.0.get());
    }

    struct Noise(u64);

    impl ReadMemory for Noise {
        fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
            for (i, byte) in out.iter_mut().enumerate() {
                let x = (address + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ self.0);
                *byte = (x >> 56) as u8 & (x >> 40) as u8;
            }
            out.len()
        }
    }

    #[test]
    fn every_arena_is_read_once() {
        for n in 1..100 {
            let mut seen: Vec<usize> = (0..n).map(|i| scattered(i, n)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        for seed in 0..64 {
            let pool_size = 16 << 10;
            let start = 1 << 20;
            let arena =
                Arena { range: start..start + (1 << 20), index: 0, fresh: u64::MAX, pool_size };
            count(&Noise(seed), &[arena], Instant::now() + Duration::from_secs(5));
        }
    }
}
