//! The report on one screen: verdict, layer, rate, culprits, hooks, what to do.

use std::fmt::Write as _;

use plumb_ledger::table::bytes;
use plumb_trace::{Frame, FrameKind};

use crate::report::{Culprit, Report};

/// Culprits and frames shown; the JSON has all.
const CULPRITS: usize = 5;
const FRAMES: usize = 14;

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
    let layer = v.layer.as_deref().unwrap_or("none grows");
    writeln!(out, "layer     {layer} (process {})", r.verdict.pid)?;
    if let (Some(rate), true) = (v.bytes_per_s, v.layer.is_some()) {
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
    if let Some(why) = &r.cost.not_traced {
        return writeln!(out, "culprits  not named: {why}");
    }
    if r.culprits.is_empty() {
        return writeln!(out, "culprits  none: nothing that grows is held by a stack seen here");
    }
    for c in r.culprits.iter().take(CULPRITS) {
        writeln!(out, "culprit   {}", headline(c))?;
        for f in c.frames.iter().take(FRAMES) {
            writeln!(out, "            {}", frame(f))?;
        }
        if c.frames.len() > FRAMES {
            writeln!(out, "            … {} more", c.frames.len() - FRAMES)?;
        }
    }
    if r.culprits.len() > CULPRITS {
        writeln!(out, "          … {} more culprits, see --json", r.culprits.len() - CULPRITS)?;
    }
    Ok(())
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

/// What a culprit holds, in one line.
pub fn headline(c: &Culprit) -> String {
    let mut parts = vec![format!("{} held in {} pieces", bytes(c.outstanding_bytes), c.count)];
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

/// `name  file:line  module`
pub fn frame(f: &Frame) -> String {
    let name = f.function.as_deref().unwrap_or("?");
    let module = f.module.as_deref().and_then(|m| m.rsplit('/').next()).unwrap_or("?");
    let place = match (&f.file, f.line) {
        (Some(file), Some(line)) => format!("{}:{line}", file.rsplit('/').next().unwrap_or(file)),
        _ => String::new(),
    };
    match f.kind {
        FrameKind::Python => printable(&format!("{name}  {place}  (Python)")),
        FrameKind::Native => printable(&format!("{name}  {place}  [{module}]")),
    }
}

/// Names are the target's: no control character of theirs reaches a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn hooks(out: &mut String, hooks: &serde_json::Value) -> std::fmt::Result {
    let text = |row: &serde_json::Value, key: &str| {
        printable(row.get(key).and_then(|v| v.as_str()).unwrap_or("?"))
    };
    for kind in ["patched", "interposed"] {
        for row in hooks.get(kind).and_then(|v| v.as_array()).into_iter().flatten() {
            writeln!(out, "hook      {} {kind} by {}", text(row, "symbol"), text(row, "owner"))?;
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
