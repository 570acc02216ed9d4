//! Whether CPython's cycle collector is on, read from outside, without symbols.
//!
//! `struct _gc_runtime_state` (`Include/internal/pycore_gc.h`): three generations, each a list's head of two
//! links, a threshold and a count; behind them a pointer to the first, and before them whether collecting is
//! enabled. That pointer to itself, and the lists that lead back, are how it is found: in the interpreter's
//! data, or, before 3.11, at the beginning of the heap. Run on 3.9 to 3.13; 3.14 has another form, of which
//! nothing is said.

use plumb_target::python::interpreter;
use plumb_target::{Memory, Process, ReadMemory, images, maps};

use super::search::search;

/// What the collector is set to, and what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collector {
    /// Whether it runs by itself: not after `gc.disable()`, nor with a threshold of 0.
    pub is_on: bool,
    /// Objects that it knows, made since it ran last and not freed.
    pub waiting: u64,
}

/// Words of a generation.
const GENERATION: usize = 3;
const GENERATIONS: usize = 3;
/// From the first generation to the pointer to it, in words.
const TO_POINTER: usize = GENERATION * GENERATIONS;
/// `enabled` and `debug` come before, in this word from the first generation on.
const BEFORE: usize = 2;
/// A larger segment is not the interpreter's, and its state is made early.
const SEARCHED_MAX: u64 = 8 << 20;

/// Reads it. `None` where no interpreter is found that has it in the known form.
pub fn read(process: &Process) -> Option<Collector> {
    let maps = maps::read(process).ok()?;
    let memory = Memory::open(process).ok()?;
    let all = images(process, &maps);
    let is_python = |image: &&plumb_target::Image| {
        interpreter(image).is_some_and(|found| !found.free_threaded && found.minor <= 13)
    };
    let data: Vec<_> = all
        .iter()
        .filter(is_python)
        .flat_map(|image| image.segments().filter(|s| s.write).map(|s| s.range))
        .collect();
    if data.is_empty() {
        return None;
    }
    let heap = maps.iter().find(|map| map.name == "[heap]").map(|map| map.start..map.end);
    data.into_iter().chain(heap).find_map(|range| {
        let end = range.end.min(range.start.saturating_add(SEARCHED_MAX));
        search(&memory, range.start..end, |words, at| find(&memory, words, at))
    })
}

fn find(memory: &impl ReadMemory, words: &[u64], start: u64) -> Option<Collector> {
    (BEFORE..words.len().saturating_sub(TO_POINTER)).find_map(|i| {
        let at = start + i as u64 * 8;
        if words[i + TO_POINTER] != at {
            return None;
        }
        let enabled = (words[i - BEFORE] >> 32) as u32;
        let leads_back = (0..GENERATIONS).all(|n| {
            let head = at + (n * GENERATION * 8) as u64;
            let next = words[i + n * GENERATION] & !3;
            memory.u64_at(next.saturating_add(8)).is_some_and(|back| back & !3 == head)
        });
        let settings = words[i + 2];
        let (threshold, count) = (settings as u32, (settings >> 32) as u32);
        (enabled <= 1 && leads_back).then_some(Collector {
            is_on: enabled == 1 && threshold != 0,
            waiting: u64::from(count.cast_signed().max(0).cast_unsigned()),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn of(setup: &str) -> Option<Collector> {
        let program = format!("import gc, sys\n{setup}\nprint(1, flush=True)\nsys.stdin.read()");
        let mut python = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let out = python.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut String::new()).expect("it is ready");
        let found = read(&Process::open(python.id()).expect("it runs"));
        drop(python.stdin.take());
        python.wait().expect("ours");
        found
    }

    #[test]
    fn whether_it_is_on_and_what_waits_for_it_is_read() {
        let on = of("gc.collect()").expect("CPython up to 3.13");
        assert!(on.is_on && on.waiting < 700, "{on:?}");
        let off = of("gc.disable()\nkept = [[] for _ in range(5000)]").expect("CPython");
        assert!(!off.is_on && (5000..20_000).contains(&off.waiting), "{off:?}");
        assert!(!of("gc.set_threshold(0)").expect("CPython").is_on);
    }
}
