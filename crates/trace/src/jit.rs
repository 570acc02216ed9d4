//! Names of code that was compiled while the target ran, from the maps that its compilers leave.
//!
//! Such a map grows: a frame may be of code that came after the map was read, and a compiler may name its
//! code only after it has run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use plumb_target::Process;

use crate::symbols::PerfMap;

/// Maps by process.
#[derive(Debug, Default)]
pub(crate) struct Jits(HashMap<u32, Jit>);

#[derive(Debug)]
struct Jit {
    map: PerfMap,
    /// Before this it is not read again.
    next: Instant,
}

/// A map is read no more often than this, and no more of the time than one part in [`SHARE`].
const LEAST: Duration = Duration::from_millis(500);
const SHARE: u32 = 50;

impl Jits {
    /// The name of the code at an address of a process, by its map as it is now.
    pub(crate) fn find(&mut self, pid: u32, pc: u64) -> Option<String> {
        self.look(pid, pc, Instant::now(), || {
            Process::open(pid).map(|process| PerfMap::read(&process)).unwrap_or_default()
        })
    }

    fn look(
        &mut self,
        pid: u32,
        pc: u64,
        now: Instant,
        read: impl FnOnce() -> PerfMap,
    ) -> Option<String> {
        let jit = self.0.entry(pid).or_insert_with(|| Jit { map: PerfMap::default(), next: now });
        let name = jit.map.find(pc).map(str::to_owned);
        if name.is_some() || now < jit.next {
            return name;
        }
        let begun = Instant::now();
        let map = read();
        jit.next = now + (begun.elapsed() * SHARE).max(LEAST);
        if !map.is_empty() {
            // Of a process that has ended, what was read before it did.
            jit.map = map;
        }
        jit.map.find(pc).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_has_grown_is_read_again() {
        let (mut jits, now) = (Jits::default(), Instant::now());
        let parsed = |text: &'static str| move || PerfMap::parse(text.as_bytes());
        let mut look =
            |pc, later: u64, text| jits.look(1, pc, now + Duration::from_secs(later), parsed(text));
        assert_eq!(look(0x1000, 0, "1000 10 early\n").as_deref(), Some("early"));
        assert_eq!(look(0x2000, 0, "2000 10 late\n"), None, "read again at once");
        let grown = "1000 10 early\n2000 10 late\n";
        assert_eq!(look(0x2000, 60, grown).as_deref(), Some("late"));
        assert_eq!(look(0x3000, 120, ""), None);
        assert_eq!(look(0x1000, 120, "").as_deref(), Some("early"), "forgotten when it ended");
    }
}
