//! The report as one HTML file that needs nothing else: no script, no font, no address.

use std::fmt::Write as _;

use plumb_ledger::table::bytes;

use super::flame;
use crate::growth::Track;
use crate::report::{Culprit, Report};
use crate::show;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2733;--dim:#667180;--line:#d9dee5;--soft:#f4f6f8;--page:#fff;\
--bad:#b3261e;--good:#1b7f4b;--open:#8a6100;--fill:#3d6fb4}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--dim:#97a3b3;--line:#36404d;--soft:#1c232c;\
--page:#12171d;--bad:#ff8a80;--good:#6fd8a4;--open:#f0c35e;--fill:#7fabe8}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1160px;\
margin:32px auto;padding:0 20px}\
h1{font-size:26px;margin:0}h2{font-size:18px;margin:36px 0 10px}\
.bad{color:var(--bad)}.good{color:var(--good)}.open{color:var(--open)}\
.facts{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0 0}\
.facts div{background:var(--soft);border-radius:8px;padding:10px 16px;min-width:130px}\
.facts b{display:block;font-size:19px}.facts span,.dim{color:var(--dim);font-size:13px}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:5px 12px 5px 0;\
border-bottom:1px solid var(--line);vertical-align:middle}th{color:var(--dim);font-weight:500}\
td.n{text-align:right;white-space:nowrap}code,pre,.mono{font:13px/1.5 ui-monospace,monospace}\
pre{background:var(--soft);border-radius:8px;padding:12px 16px;overflow:auto;margin:8px 0}\
details{border-bottom:1px solid var(--line);padding:8px 0}summary{cursor:pointer}\
.bar{display:inline-block;height:10px;border-radius:3px;background:var(--fill);margin-right:8px}\
.do{border-left:4px solid var(--fill);background:var(--soft);border-radius:4px;padding:10px 16px;\
margin:8px 0}text{fill:#1d2733}svg{max-width:100%}.flame{overflow:auto}";

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>plumb hunt</title><style>",
    );
    page.push_str(STYLE);
    page.push_str("</style></head><body>");
    for part in [head, advice, who, hooks, layers, text] {
        page.push_str(&part(report));
    }
    page.push_str("</body></html>\n");
    page
}

fn head(report: &Report) -> String {
    let v = &report.verdict.summary;
    let (class, word) = match v.leak {
        Some(true) => ("bad", "Leak"),
        Some(false) => ("good", "No leak"),
        None => ("open", "Cannot tell yet"),
    };
    let mut facts = String::new();
    let mut fact = |value: String, what: &str| {
        put(&mut facts, format_args!("<div><b>{}</b><span>{what}</span></div>", escape(&value)));
    };
    fact(v.layer.clone().unwrap_or_else(|| "none".to_owned()), "layer that grows");
    if let (Some(rate), true) = (v.bytes_per_s, v.layer.is_some()) {
        fact(format!("{}/s", show::signed_bytes(rate)), "rate");
    }
    if let Some(left) = v.oom_in_s {
        fact(show::time(left), "until memory is full");
    }
    fact(report.verdict.pid.to_string(), "process");
    fact(show::time(report.seconds), "watched");
    fact(report.lost_events.to_string(), "events lost");
    fact(format!("{:.1} %", report.cost.cores * 100.0), "of a core, Plumb's own");
    format!(
        "<h1>plumb hunt: <span class=\"{class}\">{word}</span></h1><p>{}</p>\
         <div class=\"facts\">{facts}</div>",
        escape(&v.why)
    )
}

fn advice(report: &Report) -> String {
    if report.advice.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h2>What to do</h2>");
    for a in &report.advice {
        let (text, evidence) = (escape(&a.text), escape(&a.evidence));
        put(
            &mut out,
            format_args!("<div class=\"do\">{text}<br><span class=\"dim\">{evidence}</span></div>"),
        );
    }
    out
}

fn who(report: &Report) -> String {
    if report.culprits.is_empty() {
        let why = report.cost.not_traced.as_deref().or(report.cost.too_few.as_deref());
        let why = why.map_or("Nothing that grows is held by a stack seen here.".into(), |why| {
            format!("Not named: {}", escape(why))
        });
        return format!("<h2>Who holds it</h2><p>{why}</p>");
    }
    let collected = report.culprits.first().and_then(show::collected);
    let collected = collected.map_or(String::new(), |told| format!("<p>Here {told}.</p>"));
    let flame = flame::svg(report);
    let mut out = format!(
        "<h2>Who holds it</h2>{collected}<div class=\"flame\">{flame}</div><p class=\"dim\">Widths are bytes \
         still held; callers below, Python in yellow.</p>"
    );
    for (index, culprit) in report.culprits.iter().enumerate() {
        stack(&mut out, culprit, index == 0);
    }
    out
}

fn stack(out: &mut String, c: &Culprit, open: bool) {
    let share = c.share.unwrap_or(0.0).clamp(0.0, 1.0) * 160.0;
    let open = if open { " open" } else { "" };
    put(
        out,
        format_args!(
            "<details{open}><summary><span class=\"bar\" style=\"width:{share:.0}px\"></span>{}\
             </summary><pre>",
            escape(&show::headline(c))
        ),
    );
    for frame in &c.frames {
        put(out, format_args!("{}\n", escape(&show::frame(frame))));
    }
    out.push_str("</pre></details>");
}

fn hooks(report: &Report) -> String {
    let text = |row: &serde_json::Value, key: &str| {
        escape(row.get(key).and_then(|value| value.as_str()).unwrap_or("?"))
    };
    let mut rows = String::new();
    for kind in ["patched", "interposed"] {
        for row in report.hooks.get(kind).and_then(|v| v.as_array()).into_iter().flatten() {
            let [symbol, module, owner] = ["symbol", "module", "owner"].map(|key| text(row, key));
            put(
                &mut rows,
                format_args!(
                    "<tr><td><code>{symbol}</code></td><td>{kind}</td><td class=\"mono\">{owner}</td>\
                     <td class=\"mono\">{module}</td></tr>"
                ),
            );
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Who sits between</h2><table><tr><th>function</th><th>how</th><th>by</th><th>in</th></tr>\
         {rows}</table>"
    )
}

/// Every layer over time: those that grew most first.
fn layers(report: &Report) -> String {
    let mut tracks: Vec<&Track> = report.layers.iter().collect();
    let grown = |track: &Track| {
        let ends = track.points.first().zip(track.points.last());
        ends.map_or(0, |(first, last)| last.1.saturating_sub(first.1))
    };
    tracks.sort_by_key(|track| std::cmp::Reverse(grown(track)));
    let rows: String = tracks.into_iter().map(timeline).collect();
    format!(
        "<h2>Layers over time</h2><table><tr><th>layer</th><th>from 0 to its most</th>\
         <th>at first</th><th>at last</th></tr>{rows}</table>"
    )
}

fn timeline(track: &Track) -> String {
    const WIDTH: f64 = 620.0;
    const HEIGHT: f64 = 40.0;
    let first = track.points.first().map_or((0.0, 0), |p| *p);
    let last = track.points.last().map_or((0.0, 0), |p| *p);
    let most = track.points.iter().map(|p| p.1).max().unwrap_or(1).max(1) as f64;
    let over = (last.0 - first.0).max(1e-9);
    let mut line = String::new();
    for (t, b) in &track.points {
        let (x, y) = ((t - first.0) / over * WIDTH, HEIGHT - *b as f64 / most * (HEIGHT - 3.0));
        put(&mut line, format_args!("{x:.1},{y:.1} "));
    }
    format!(
        "<tr><td>{}<br><span class=\"dim\">process {}</span></td><td><svg viewBox=\"0 0 {WIDTH} \
         {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"><polygon points=\"0,{HEIGHT} {line}{WIDTH},\
         {HEIGHT}\" fill=\"var(--fill)\" opacity=\".2\"/><polyline points=\"{line}\" fill=\"none\" \
         stroke=\"var(--fill)\" stroke-width=\"1.5\"/></svg></td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td></tr>",
        escape(&track.layer),
        track.pid,
        bytes(first.1),
        bytes(last.1),
    )
}

fn text(report: &Report) -> String {
    format!(
        "<details><summary>The report as text</summary><pre>{}</pre></details>",
        escape(&show::text(report))
    )
}

/// Writing to a string does not fail.
fn put(out: &mut String, text: std::fmt::Arguments) {
    let _ok = out.write_fmt(text);
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
