//! The live regions of this process.

use std::collections::BTreeMap;

use parking_lot::Mutex;

static LIVE: Mutex<Live> = Mutex::new(Live { next: 0, regions: BTreeMap::new() });

struct Live {
    next: u64,
    regions: BTreeMap<u64, Entry>,
}

/// One live region of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The region's name; several regions may bear one name.
    pub name: String,
    /// Bytes mapped (not: resident).
    pub bytes: usize,
}

/// The live regions of this process, oldest first.
#[must_use]
pub fn all() -> Vec<Entry> {
    LIVE.lock().regions.values().cloned().collect()
}

/// A region's place in the list, given up when dropped.
#[derive(Debug)]
pub(crate) struct Registered(u64);

impl Registered {
    pub(crate) fn new(name: &str, bytes: usize) -> Self {
        let mut live = LIVE.lock();
        let id = live.next;
        live.next += 1;
        live.regions.insert(id, Entry { name: name.to_owned(), bytes });
        Self(id)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        LIVE.lock().regions.remove(&self.0);
    }
}
