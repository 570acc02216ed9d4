//! `tables FILE`: the bytes of memory that a model's tokenizer holds once it is loaded.

use plumb_gguf::Gguf;
use plumb_text::Tokenizer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: tables FILE")?;
    let gguf = Gguf::open(path.as_ref())?;
    let before = LIVE.load(Ordering::Relaxed);
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    println!("{}", LIVE.load(Ordering::Relaxed) - before);
    drop(tokenizer);
    Ok(())
}
