//! The report on one screen: verdict, layer, rate, culprits, hooks, what to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use plumb_ledger::table::bytes;
use plumb_target::printable;
use plumb_trace::{Frame, FrameKind};

use crate::culprits::STARVED;
use crate::holder::{own_frame, passes_on};
use crate::report::{Culprit, Report};
use crate::short::short;

/// Culprits shown, and frames of the first and of the others; the JSON has all.
const CULPRITS: usize = 4;
const FRAMES: [usize; CULPRITS] = [12, 6, 4, 4];
/// Libraries of which only the way in is told.
pub(crate) const PLUMBING: [&str; 8] =
    ["libc.so", "libc-2", "ld-linux", "ld-musl", "libpthread", "libstdc++", "libpython", "python"];

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ok = write(&mut out, report);
    out
}

fn write(out: &mut String, r: &Report) -> std::fmt::Result {
    let v = &r.verdict.summary;
    let judged = match v.leak {
        Some(true) => "LEAK",
        Some(false) => "no leak",
        None => "cannot tell yet",
    };
    writeln!(out, "verdict   {judged}: {}", v.why)?;
    let layer = match v.copies {
        true => "copies of what a fork shares",
        false => v.layer.as_deref().unwrap_or("none grows"),
    };
    writeln!(out, "layer     {layer} (process {})", r.verdict.pid)?;
    if let (Some(rate), true) = (v.bytes_per_s, v.layer.is_some() || v.copies) {
        let until = v.oom_in_s.map_or(String::new(), |s| format!(", out of memory in {}", time(s)));
        writeln!(out, "rate      {}/s{until}", signed_bytes(rate))?;
    }
    writeln!(out)?;
    culprits(out, r)?;
    objects(out, r)?;
    hooks(out, &r.hooks)?;
    for a in &r.advice {
        writeln!(out, "do        {}\n          ({}; {})", a.text, a.id, a.evidence)?;
    }
    let c = &r.cost;
    write!(out, "\nwatched {:.0} s, {} events, {} lost", r.seconds, c.events, r.lost_events)?;
    writeln!(out, "; cost {:.1} % of a core, {} resident", c.cores * 100.0, bytes(c.rss_bytes))?;
    if c.waited >= STARVED {
        writeln!(
            out,
            "The machine was busy: this hunt waited {:.0} % of its time for a processor, and saw less of \
             the target. Hunt longer (--for) to know more.",
            c.waited * 100.0
        )?;
    }
    if let Some(why) = &c.not_probed {
        writeln!(out, "malloc was not probed: {why}")?;
    }
    if c.paired_in_kernel {
        writeln!(
            out,
            "The target maps too fast to tell of each: {} maps and unmaps were paired in the \
             kernel. Ranges unmapped in part may be charged to the wrong stack.",
            c.counted_in_kernel
        )?;
    }
    Ok(())
}

fn culprits(out: &mut String, r: &Report) -> std::fmt::Result {
    let v = &r.verdict.summary;
    if let Some(why) = &r.cost.not_traced {
        return writeln!(out, "culprits  not named: {why}");
    }
    if let Some(why) = &r.cost.too_few {
        return writeln!(out, "culprits  not named: {why}");
    }
    if r.culprits.is_empty() {
        return writeln!(out, "culprits  none: nothing that grows is held by a stack seen here");
    }
    if let Some(own) = &r.own_profile {
        let name = |path: &std::path::Path| {
            printable(&path.file_name().unwrap_or_default().to_string_lossy())
        };
        let (first, last) = (name(&own.first), name(&own.last));
        writeln!(
            out,
            "          (as its own profiler's dumps {first} and {last} say, {} apart)",
            time(own.seconds)
        )?;
    }
    if r.may_be_first > r.culprits.len() {
        writeln!(
            out,
            "          (cannot tell whether it holds most: its error is as large as its share)"
        )?;
    } else if r.may_be_first > 1 {
        writeln!(
            out,
            "          (cannot tell which of the first {} holds most: their errors overlap)",
            r.may_be_first
        )?;
    }
    if let Some(told) = r.culprits.first().and_then(collected) {
        writeln!(out, "          ({told})")?;
    }
    for (c, most) in r.culprits.iter().zip(FRAMES) {
        writeln!(out, "culprit   {}", if v.copies { copier(c) } else { headline(c) })?;
        if let Some(ways) = c.ways.len().checked_sub(1).filter(|more| *more > 0) {
            writeln!(
                out,
                "          (one function; this is the biggest of its ways, {ways} more)"
            )?;
        }
        let told = telling(&c.frames);
        let shown: usize = told.iter().take(most).map(|(_, times)| times).sum();
        for (f, times) in told.iter().take(most) {
            let times = if *times > 1 { format!("  × {times}") } else { String::new() };
            writeln!(out, "            {}{times}", frame(f))?;
        }
        if c.frames.len() > shown {
            writeln!(out, "            … {} more", c.frames.len() - shown)?;
        }
    }
    unnamed(out, &r.culprits)?;
    if r.culprits.len() > CULPRITS {
        writeln!(out, "          … {} more culprits, see --json", r.culprits.len() - CULPRITS)?;
    }
    Ok(())
}

/// Of a heap that a collector frees the stacks tell less.
pub fn collected(c: &Culprit) -> Option<&'static str> {
    const MARKS: [&str; 2] = ["runtime.(*mheap)", "v8::internal::"];
    let is_collector = |f: &Frame| {
        let name = f.function.as_deref().unwrap_or_default();
        let module = f.module.as_deref().unwrap_or_default();
        MARKS.iter().any(|mark| name.starts_with(mark)) || module.ends_with("/libjvm.so")
    };
    c.frames.iter().any(is_collector).then_some(
        "who made a heap grow that a collector frees, garbage counted: who keeps it, only the language's \
         own profiler knows",
    )
}

/// Which files have no names for what was shown of them, and what finds their debug files.
fn unnamed(out: &mut String, culprits: &[Culprit]) -> std::fmt::Result {
    let frames = culprits.iter().take(CULPRITS).flat_map(|c| &c.frames);
    let mut told: Vec<&str> = Vec::new();
    for f in frames.filter(|f| f.function.is_none()) {
        let module = f.module.as_deref().zip(f.module_name());
        let (Some((module, name)), Some(id)) = (module, f.build_id.as_deref()) else { continue };
        if told.contains(&module) || PLUMBING.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        told.push(module);
        let name = printable(name);
        writeln!(
            out,
            "          ({name} has no symbols: its debug file is that of build id {id})"
        )?;
    }
    Ok(())
}

/// The frames that tell something, each with how often it repeats: the innermost, the way into libraries
/// that everybody uses, and all others. Between Python's functions the interpreter tells nothing.
fn telling(frames: &[Frame]) -> Vec<(&Frame, usize)> {
    let python = |f: &Frame| f.kind == FrameKind::Python;
    let interpreter = frames.iter().filter(|f| python(f)).find_map(|f| f.module.as_deref());
    let is_plumbing = |f: &Frame| {
        let Some(name) = f.module_name().filter(|_| !python(f)) else { return false };
        f.module.as_deref() == interpreter
            || PLUMBING.iter().any(|p| name.starts_with(p))
            || passes_on(f)
    };
    let mut in_python = false;
    let mut told: Vec<(&Frame, usize)> = Vec::new();
    for (i, f) in frames.iter().enumerate() {
        in_python |= python(f);
        let is_way_in = frames
            .get(i + 1)
            .is_some_and(|o| python(o) || o.module != f.module || passes_on(f) && !is_plumbing(o));
        let tells = !is_plumbing(f) || i == 0 || is_way_in && !in_python;
        match told.last_mut() {
            Some((last, times)) if tells && f.function.is_some() && last.function == f.function => {
                *times += 1;
            }
            _ if tells => told.push((f, 1)),
            _ => {}
        }
    }
    told
}

/// The Python types that grew most.
fn objects(out: &mut String, r: &Report) -> std::fmt::Result {
    const TYPES: usize = 5;
    let Some(objects) = &r.python else { return Ok(()) };
    let grew = objects.types.iter().filter(|t| t.bytes_growth >= 100 << 10);
    for t in grew.take(TYPES) {
        let (name, more) = (printable(&t.name), bytes(t.bytes_growth.unsigned_abs()));
        writeln!(out, "objects   {name}: {:+} to {}, {more} more", t.count_growth, t.count)?;
    }
    Ok(())
}

/// Who holds how much, in one line.
pub fn headline(c: &Culprit) -> String {
    let plural = if c.count == 1 { "piece" } else { "pieces" };
    let held = format!("{} in {} {plural}", bytes(c.outstanding_bytes), c.count);
    let mut parts = match own_frame(c) {
        Some(own) => vec![format!("{} holds {held}", titled(own))],
        None => vec![format!("{held} held")],
    };
    if c.older_bytes > 0 {
        parts.push(format!("{} by touching memory older than this hunt", bytes(c.older_bytes)));
    }
    if let Some(share) = c.share {
        let error = c.share_error.map_or(String::new(), |e| format!(" ± {:.0}", e * 100.0));
        parts.push(format!("{:.0}{error} % of the growth", share * 100.0));
    }
    if let Some(age) = c.age_s {
        parts.push(format!("oldest {}", time(age)));
    }
    format!("{} (process {})", parts.join(", "), c.pid)
}

/// A function's name, or its address with its file.
fn titled(f: &Frame) -> String {
    let module = f.module_name().unwrap_or("?");
    printable(&match (&f.function, f.address) {
        (Some(name), _) => short(name),
        (None, Some(at)) => format!("{at:#x} [{module}]"),
        (None, None) => format!("? [{module}]"),
    })
}

/// What it copied, in one line.
fn copier(c: &Culprit) -> String {
    let share = c.share.map_or(String::new(), |s| format!(", {:.0} % of the growth", s * 100.0));
    format!(
        "{} by writing to memory that a fork shares{share} (process {})",
        bytes(c.older_bytes),
        c.pid
    )
}

/// `name  file:line  module`
pub fn frame(f: &Frame) -> String {
    let unnamed = || f.address.map_or("?".to_owned(), |at| format!("{at:#x}"));
    let name = f.function.as_deref().map_or_else(unnamed, short);
    let module = f.module_name().unwrap_or("?");
    let place = match (&f.file, f.line) {
        (Some(file), Some(line)) => format!("{}:{line}", file.rsplit('/').next().unwrap_or(file)),
        _ => String::new(),
    };
    match f.kind {
        FrameKind::Python => printable(&format!("{name}  {place}  (Python)")),
        FrameKind::Native => printable(&format!("{name}  {place}  [{module}]")),
    }
}

/// One line for each owner: an allocator stands before thirty functions.
fn hooks(out: &mut String, hooks: &serde_json::Value) -> std::fmt::Result {
    const NAMES: usize = 8;
    let text = |row: &serde_json::Value, key: &str| {
        printable(row.get(key).and_then(|v| v.as_str()).unwrap_or("?"))
    };
    for kind in ["patched", "interposed"] {
        let mut by_owner: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in hooks.get(kind).and_then(|v| v.as_array()).into_iter().flatten() {
            by_owner.entry(text(row, "owner")).or_default().push(text(row, "symbol"));
        }
        for (owner, mut names) in by_owner {
            // C's own functions say more than each of C++'s operators.
            names.sort_by_key(|name| name.contains(' '));
            let more = names.len().saturating_sub(NAMES);
            names.truncate(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(out, "hook      {}{more} {kind} by {owner}", names.join(", "))?;
        }
    }
    Ok(())
}

/// A rate in bytes.
pub fn signed_bytes(rate: f64) -> String {
    let size = bytes(rate.abs() as u64);
    if rate < 0.0 { format!("-{size}") } else { size }
}

/// A time in its unit.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, name: &str, module: &str) -> Frame {
        let (function, module) = (Some(name.to_owned()), Some(module.to_owned()));
        Frame { kind, function, module, ..Frame::unknown() }
    }

    #[test]
    fn who_holds_it_is_said_before_all() {
        let held = |names: &[(&str, &str)]| Culprit {
            outstanding_bytes: 3 << 20,
            count: 1,
            share: Some(0.5),
            frames: names.iter().map(|(n, m)| frame(FrameKind::Native, n, m)).collect(),
            ..Culprit::default()
        };
        let own = held(&[("mmap", "/lib/libc.so.6"), ("std::f", "/bin/a"), ("keep", "/bin/a")]);
        let line = "keep holds 3.0 MiB in 1 piece, 50 % of the growth (process 0)";
        assert_eq!(headline(&own), line);
        let nobody = held(&[("mmap", "/lib/libc.so.6")]);
        assert_eq!(headline(&nobody), "3.0 MiB in 1 piece held, 50 % of the growth (process 0)");
        let go = held(&[("runtime.(*mheap).grow", "/bin/a"), ("main.keep", "/bin/a")]);
        assert!(collected(&go).is_some() && collected(&own).is_none());
    }

    #[test]
    fn a_file_without_symbols_is_told_by_its_build_id() {
        let bare = |module: &str| Frame {
            module: Some(module.to_owned()),
            address: Some(0x401672),
            build_id: Some("0aff".to_owned()),
            ..Frame::unknown()
        };
        let frames = vec![bare("/lib/libc.so.6"), bare("/bin/server"), bare("/bin/server")];
        let mut out = String::new();
        unnamed(&mut out, &[Culprit { frames, ..Culprit::default() }]).expect("a string");
        let line = "          (server has no symbols: its debug file is that of build id 0aff)\n";
        assert_eq!(out, line);
    }

    #[test]
    fn hooks_of_one_owner_are_one_line() {
        let row = |symbol: &str| serde_json::json!({"symbol": symbol, "owner": "/lib/hook.so"});
        let names = ["operator new(unsigned long)", "munmap", "mmap"];
        let rows: Vec<_> = names.iter().map(|name| row(name)).collect();
        let mut out = String::new();
        hooks(&mut out, &serde_json::json!({"patched": rows})).expect("a string");
        let line = "hook      munmap, mmap, operator new(unsigned long) patched by /lib/hook.so\n";
        assert_eq!(out, line);
        let rows: Vec<_> = (0..30).map(|n| row(&format!("f{n}"))).collect();
        out.clear();
        hooks(&mut out, &serde_json::json!({"interposed": rows})).expect("a string");
        assert!(out.lines().count() == 1 && out.contains("f7 and 22 more"), "{out}");
    }

    #[test]
    fn the_programs_own_functions_are_told_and_plumbing_is_not() {
        let native = |name, module| frame(FrameKind::Native, name, module);
        let python = |name| frame(FrameKind::Python, name, "/usr/bin/python3.11");
        let frames = [
            native("brk", "/lib/libc.so.6"),
            native("sbrk", "/lib/libc.so.6"),
            native("malloc", "/lib/libc.so.6"),
            native("_PyObject_Malloc", "/usr/bin/python3.11"),
            native("os_urandom", "/usr/bin/python3.11"),
            python("read"),
            native("_PyObject_MakeTpCall", "/usr/bin/python3.11"),
            python("walk"),
            python("walk"),
            native("hook", "/opt/libhook.so"),
            native("_start", "/usr/bin/python3.11"),
        ];
        let told = telling(&frames);
        let told: Vec<_> = told.iter().map(|(f, n)| (f.function.as_deref().unwrap(), *n)).collect();
        let expected =
            [("brk", 1), ("malloc", 1), ("os_urandom", 1), ("read", 1), ("walk", 2), ("hook", 1)];
        assert_eq!(told, expected);
        let names = ["operator_new", "std::a", "std::b", "keep", "main"];
        let told: Vec<Frame> = names.map(|name| native(name, "/bin/server")).into();
        let told: Vec<_> = telling(&told).iter().filter_map(|(f, _)| f.function.clone()).collect();
        assert_eq!(told, ["operator_new", "std::b", "keep", "main"]);
    }
}
