//! Leaks vectors through Rust's allocator, which is the C library's.

use std::io::Read;

#[inline(never)]
fn remember(held: &mut Vec<Vec<u8>>) {
    held.push(vec![1; 4000]);
}

fn main() {
    let bytes = std::env::var("LAB_BYTES").ok().and_then(|b| b.parse().ok()).unwrap_or(48 << 20);
    let mut held = Vec::with_capacity(bytes / 4000);
    while held.len() * 4000 < bytes {
        remember(&mut held);
    }
    // A chunk has 8 bytes of its own, and its size is a multiple of 16.
    let sum = held.len() * 4016 + held.capacity() * 24;
    let pid = std::process::id();
    println!(
        r#"{{"program":"rust_vec","pid":{pid},"leak":true,"layers":{{"heap_in_use":{sum}}},"beyond_rss":{{}},"functions":["remember"]}}"#
    );
    // Stays until standard input closes.
    let _ = std::io::stdin().read(&mut [0]);
}
