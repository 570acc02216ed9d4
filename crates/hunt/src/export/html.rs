//! The report as one HTML file that needs nothing else: no script, no font, no address.

use std::fmt::Write as _;

use super::flame;
use crate::growth::Track;
use crate::report::Report;
use crate::show;

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut lines = String::new();
    for track in &report.layers {
        lines.push_str(&timeline(track));
    }
    let flame = flame::svg(report);
    let flame = if flame.is_empty() { "<p>No stack holds growth.</p>".to_owned() } else { flame };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>plumb hunt</title>\
         <style>body{{font:14px sans-serif;max-width:1200px;margin:24px auto;padding:0 12px}}\
         pre{{background:#f5f5f5;padding:12px;overflow:auto}}td{{padding:2px 12px 2px 0}}\
         </style><h1>plumb hunt</h1><pre>{}</pre><h2>Who holds it</h2>{flame}\
         <h2>Layers over time</h2><table>{lines}</table><h2>All stacks</h2><pre>{}</pre></html>\n",
        escape(&show::text(report)),
        escape(&stacks(report)),
    )
}

fn stacks(report: &Report) -> String {
    let mut out = String::new();
    for c in &report.culprits {
        // Writing to a string does not fail.
        let _ok = writeln!(
            out,
            "{} bytes, {} older, {} pieces",
            c.outstanding_bytes, c.older_bytes, c.count
        );
        for f in &c.frames {
            let _ok = writeln!(out, "    {}", show::frame(f));
        }
    }
    out
}

/// A row with a layer's name, its line, and its last bytes.
fn timeline(track: &Track) -> String {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 32.0;
    let last = track.points.last().map_or((0.0, 0), |p| *p);
    let most = track.points.iter().map(|p| p.1).max().unwrap_or(1).max(1) as f64;
    let end = last.0.max(1e-9);
    let line: Vec<String> = track
        .points
        .iter()
        .map(|(t, b)| format!("{:.1},{:.1}", t / end * WIDTH, HEIGHT - *b as f64 / most * HEIGHT))
        .collect();
    format!(
        "<tr><td>{} {}</td><td><svg width=\"{WIDTH}\" height=\"{HEIGHT}\"><polyline \
         points=\"{}\" fill=\"none\" stroke=\"#3d5a80\"/></svg></td><td>{}</td></tr>",
        track.pid,
        escape(&track.layer),
        line.join(" "),
        plumb_ledger::table::bytes(last.1),
    )
}

/// Names are the target's: nothing of theirs becomes markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
