//! A program under the `mimalloc` crate's allocator that keeps some blocks, frees some itself and has
//! others freed by another thread. It keeps to the lab's convention.

use std::io::Read;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sizes of blocks that waste nothing.
const SIZES: [usize; 12] =
    [16, 32, 64, 128, 512, 1024, 4096, 8192, 20_480, 65_536, 262_144, 1 << 20];
const TAKEN: usize = 48 << 20;

fn main() {
    let mut state = 12_345_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut blocks: Vec<Option<Box<[u8]>>> = Vec::new();
    let mut taken = 0;
    while taken < TAKEN {
        let size = SIZES[random() % SIZES.len()];
        if random() % size < 256 {
            blocks.push(Some(vec![1; size].into_boxed_slice()));
            taken += size;
        }
    }
    let mut given = Vec::new();
    for block in &mut blocks {
        match random() % 3 {
            0 => *block = None,
            1 => given.extend(block.take()),
            _ => {}
        }
    }
    std::thread::spawn(move || drop(given)).join().expect("it frees them");
    let live: usize = blocks.iter().flatten().map(|block| block.len()).sum();
    let list = blocks.capacity() * size_of::<Option<Box<[u8]>>>();
    let (pid, live) = (std::process::id(), live + list);
    println!(
        "{{\"program\":\"mimalloc_freed\",\"pid\":{pid},\"seconds\":0,\"leak\":false,\
         \"layers\":{{\"heap_in_use\":{live},\"heap_retained\":{}}},\"beyond_rss\":{{}},\"functions\":[]}}",
        taken + list - live
    );
    let _end = std::io::stdin().read(&mut [0]);
    assert!(!blocks.is_empty());
}
