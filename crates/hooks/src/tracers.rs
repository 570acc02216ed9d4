//! Who else looks at the process: debuggers, breakpoints, filters.

use std::collections::BTreeSet;
use std::fs;

use plumb_target::status::Status;
use plumb_target::{Error, Map, Process, Range, maps};

use crate::report::{Tracer, TracerKind};

/// Threads whose tracers are asked for; one of a program's first is enough in practice.
const MAX_THREADS: usize = 4096;

/// The debuggers of any thread, the `breakpoints` that the text has, and filters.
pub(crate) fn find(
    process: &Process,
    maps: &[Map],
    breakpoints: Vec<Tracer>,
) -> Result<Vec<Tracer>, Error> {
    let status = process.status()?;
    let debuggers = debuggers(process, status.tracer);
    let has_uprobes = maps.iter().any(|map| map.name == "[uprobes]");
    let made_writable = match (breakpoints.is_empty(), has_uprobes, debuggers.is_empty()) {
        (false, false, true) => made_writable(&fs::read(process.path("smaps")).unwrap_or_default()),
        _ => Vec::new(),
    };
    let is_own =
        |at: Option<u64>| at.is_some_and(|at| made_writable.iter().any(|r| r.contains(&at)));
    let alone = debuggers.is_empty();
    let mut found: Vec<Tracer> = debuggers.into_iter().map(ptrace).collect();
    if breakpoints.is_empty() && has_uprobes {
        found.push(Tracer::of(TracerKind::UprobesBefore));
    }
    found.extend(breakpoints.into_iter().map(|b| match b.kind {
        // A debugger and a uprobe leave the same byte; a debugger that is there is the likelier, and
        // neither of them makes the text writable as a program must that writes the byte itself.
        TracerKind::Breakpoint if alone && !is_own(b.address) => {
            Tracer { kind: TracerKind::Uprobe, ..b }
        }
        _ => b,
    }));
    if status.seccomp != 0 {
        found.push(Tracer::of(TracerKind::Seccomp));
    }
    Ok(found)
}

/// The executable mappings that are or were writable, from `smaps`: the kernel counts the memory of a
/// private mapping that was made writable from then on (flag `ac`).
fn made_writable(smaps: &[u8]) -> Vec<Range> {
    let mut here: Option<Range> = None;
    let mut found = Vec::new();
    for line in smaps.split(|byte| *byte == b'\n') {
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let has = |flag: &[u8]| flags.split(u8::is_ascii_whitespace).any(|f| f == flag);
            found.extend(here.take().filter(|_| has(b"ex") && has(b"ac")));
        } else if let Ok([map]) = maps::parse(line).as_deref() {
            here = Some(map.range());
        }
    }
    found
}

fn debuggers(process: &Process, of_main: u32) -> BTreeSet<u32> {
    let threads = fs::read_dir(process.path("task")).into_iter().flatten().flatten();
    let of_threads = threads.take(MAX_THREADS).filter_map(|entry| {
        let text = fs::read(entry.path().join("status")).ok()?;
        Some(Status::parse(&text).tracer)
    });
    of_threads.chain([of_main]).filter(|&pid| pid != 0).collect()
}

fn ptrace(pid: u32) -> Tracer {
    let name = Process::open(pid).and_then(|process| process.name()).ok();
    Tracer { name, pid: Some(pid), ..Tracer::of(TracerKind::Ptrace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_was_made_writable_is_known() {
        let text = b"\
1000-2000 r-xp 00000000 fe:00 1 /lib/libc.so.6
Rss:    4 kB
VmFlags: rd ex mr mw me
2000-3000 r-xp 00001000 fe:00 1 /lib/libc.so.6
VmFlags: rd ex mr mw me ac
3000-4000 rw-p 00002000 fe:00 1 /lib/libc.so.6
VmFlags: rd wr mr mw me ac
";
        let found = made_writable(text);
        assert_eq!((found.len(), found.first()), (1, Some(&(0x2000..0x3000))));
        assert!(made_writable(b"\xff-1 - -\nVmFlags:").is_empty());
    }
}
