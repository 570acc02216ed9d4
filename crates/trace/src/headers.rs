//! The words that say what became of many allocations of glibc's, read together: one call for hundreds.

use std::collections::HashMap;

use plumb_target::ReadMemory;

/// Words by address.
#[derive(Debug, Default)]
pub struct Headers(HashMap<u64, u64>);

const WORD: u64 = 8;
const FLAGS: u64 = 7;
/// No sampled chunk that is not a mapping of its own is larger.
const SIZE_MAX: u64 = 64 << 20;

impl Headers {
    /// Reads the headers of the chunks at these allocations, and of the chunks behind them.
    pub fn read(allocations: impl Iterator<Item = u64>, memory: &impl ReadMemory) -> Self {
        let own: Vec<u64> = allocations.filter_map(|address| address.checked_sub(WORD)).collect();
        let mut headers = Self::default();
        let behind = headers.add(&own, memory).into_iter().filter_map(|(at, header)| {
            (WORD + 1..SIZE_MAX).contains(&header).then(|| at.checked_add(header & !FLAGS))?
        });
        let behind: Vec<u64> = behind.collect();
        headers.add(&behind, memory);
        headers
    }

    fn add(&mut self, places: &[u64], memory: &impl ReadMemory) -> Vec<(u64, u64)> {
        let mut bytes = vec![0; places.len() * WORD as usize];
        memory.read_scattered(places, WORD as usize, &mut bytes);
        let words = plumb_target::memory::words(&bytes);
        let found: Vec<(u64, u64)> = places.iter().copied().zip(words).collect();
        self.0.extend(found.iter().copied());
        found
    }
}

impl ReadMemory for Headers {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        match self.0.get(&address) {
            Some(word) if out.len() == WORD as usize => {
                out.copy_from_slice(&word.to_le_bytes());
                out.len()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_and_the_one_behind_it_are_read() {
        struct Heap;
        impl ReadMemory for Heap {
            fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
                let word: u64 = match address {
                    0x1008 => 0x41,
                    0x1048 => 0x31,
                    _ => panic!("{address:#x} is no header of these"),
                };
                out.copy_from_slice(&word.to_le_bytes());
                out.len()
            }
        }
        let headers = Headers::read(std::iter::once(0x1010), &Heap);
        assert_eq!((headers.u64_at(0x1008), headers.u64_at(0x1048)), (Some(0x41), Some(0x31)));
        assert_eq!(headers.u64_at(0x2000), None);
    }
}
