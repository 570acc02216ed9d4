//! Our own memory by layer, for a metrics page: cheap however often it is asked for.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use plumb_target::Process;

use crate::sample::{Depth, take};

/// A sample is used again until this many times its own cost have passed: 1 % of a core at most.
const COSTS_APART: u32 = 100;
const AT_LEAST: Duration = Duration::from_secs(1);

struct Known {
    at: Instant,
    fresh_for: Duration,
    rows: Vec<(String, u64)>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Resident bytes of this process, a row a layer, heaps and arenas split. At most as old as a hundred
/// times what it cost, so that asking costs less than 1 % of a core. Empty where `/proc` cannot be
/// read.
pub fn own() -> Vec<(String, u64)> {
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < known.fresh_for) {
        return known.rows.clone();
    }
    let at = Instant::now();
    let depth = Depth {
        heap: true,
        python: false,
        huge_pages: false,
        beyond: false,
        budget: Duration::from_secs(1),
    };
    let sample = Process::open(std::process::id()).and_then(|own| take(&own, depth));
    let rows: Vec<(String, u64)> = sample
        .map(|sample| sample.layers)
        .unwrap_or_default()
        .into_iter()
        .map(|row| (row.layer.name().to_owned(), row.resident_bytes))
        .collect();
    let fresh_for = (at.elapsed() * COSTS_APART).max(AT_LEAST);
    *known = Some(Known { at: Instant::now(), fresh_for, rows: rows.clone() });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_its_own_heap_and_is_asked_again_for_nothing() {
        let block = vec![1u8; 40 << 20];
        let rows = own();
        let bytes = |name: &str| rows.iter().find(|(n, _)| n == name).map_or(0, |(_, b)| *b);
        assert!(bytes("heap_in_use") >= block.len() as u64, "{rows:?}");
        assert!(bytes("code") > 0 && bytes("stacks") > 0);
        let begun = Instant::now();
        assert_eq!(own(), rows);
        assert!(begun.elapsed() < Duration::from_millis(100));
    }
}
