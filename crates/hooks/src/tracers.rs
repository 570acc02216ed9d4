//! Who else looks at the process: debuggers, breakpoints, filters.

use std::collections::BTreeSet;
use std::fs;

use plumb_target::status::Status;
use plumb_target::{Error, Map, Process};

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
    let kind = if debuggers.is_empty() { TracerKind::Uprobe } else { TracerKind::Breakpoint };
    let mut found: Vec<Tracer> = debuggers.into_iter().map(ptrace).collect();
    if breakpoints.is_empty() && maps.iter().any(|map| map.name == "[uprobes]") {
        found.push(Tracer::of(TracerKind::UprobesBefore));
    }
    found.extend(breakpoints.into_iter().map(|b| match b.kind {
        // A debugger and a uprobe leave the same byte; a debugger that is there is the likelier.
        TracerKind::Breakpoint => Tracer { kind, ..b },
        _ => b,
    }));
    if status.seccomp != 0 {
        found.push(Tracer::of(TracerKind::Seccomp));
    }
    Ok(found)
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
