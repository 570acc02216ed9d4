//! The report as one HTML file that needs nothing else: no script, no font, no address.

use std::fmt::Write as _;

use crate::ask::Answer;
use crate::report::{Report, milliseconds};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;max-width:960px;margin:32px auto;\
    padding:0 16px;color:#1b263b}table{border-collapse:collapse}td,th{padding:4px 16px 4px 0;\
    text-align:right}td:first-child,th:first-child{text-align:left}svg{background:#f6f8fa;\
    overflow:visible;margin:8px 0 28px 56px}text{font:12px system-ui,sans-serif;fill:#5c677d}\
    .big{font-size:28px;font-weight:600}.of{color:#5c677d}";

/// The whole page: figures, then who waited when, then how long waits are distributed.
pub fn html(report: &Report, answers: &[Answer]) -> String {
    let itl = answers.iter().flat_map(|a| a.itl_s.iter().copied()).collect();
    let ttft: Vec<f64> = answers.iter().filter_map(|a| a.ttft_s).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>plumb load</title>\
         <style>{STYLE}</style><h1>plumb load</h1>\
         <p><span class=\"big\">{:.2} good answers a second</span> \
         <span class=\"of\">{:.0} % of {} requests kept TTFT ≤ {} and TPOT ≤ {}</span></p>\
         <p>{:.2} answers and {:.1} output tokens a second, for {:.1} s.</p>{}{}\
         <h2>Time to the first text, by when its request was due</h2>{}\
         <h2>How long clients waited for the first text</h2>{}\
         <h2>Between two pieces of text</h2>{}</html>\n",
        report.goodput_per_s,
        report.good_share * 100.0,
        report.requests,
        milliseconds(report.slo.ttft_s),
        milliseconds(report.slo.tpot_s),
        report.requests_per_s,
        report.output_tokens_per_s,
        report.seconds,
        failures(report),
        times(report),
        waits(answers, report.slo.ttft_s),
        shares(ttft),
        shares(itl),
    )
}

fn failures(report: &Report) -> String {
    let rows = report.failures.iter();
    let row = |(why, count): &(String, usize)| format!("<li>{count} failed: {}</li>", escape(why));
    let rows: String = rows.map(row).collect();
    if rows.is_empty() { rows } else { format!("<ul>{rows}</ul>") }
}

fn times(report: &Report) -> String {
    let mut out = "<table><tr><th></th><th>mean</th><th>p50</th><th>p90</th><th>p99</th>\
                   <th>max</th></tr>"
        .to_owned();
    for (name, times) in report.times() {
        let Some(t) = times else { continue };
        let cells =
            [t.mean, t.p50, t.p90, t.p99, t.max].map(|v| format!("<td>{}</td>", milliseconds(v)));
        // Writing to a string does not fail.
        let _ok = write!(out, "<tr><td>{name}</td>{}</tr>", cells.concat());
    }
    out + "</table>"
}

/// A dot a request, at the height of its time to the first text; failures at the top, in red.
fn waits(answers: &[Answer], limit: f64) -> String {
    let end = answers.iter().map(|a| a.due_s).fold(1e-3, f64::max);
    let most = answers.iter().filter_map(|a| a.ttft_s).fold(limit, f64::max).max(1e-3);
    let mut marks = line_at(limit / most);
    for answer in answers {
        let x = answer.due_s / end * WIDTH;
        let (y, colour) = match (answer.ttft_s, &answer.failure) {
            (Some(t), None) => (HEIGHT - t / most * HEIGHT, "#3d5a80"),
            _ => (0.0, "#c1121f"),
        };
        let _ok =
            write!(marks, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
    }
    frame(&marks, &format!("{end:.0} s"), &milliseconds(most))
}

/// The share of clients that waited at most so long.
fn shares(mut seconds: Vec<f64>) -> String {
    const STEPS: usize = 200;
    seconds.sort_unstable_by(f64::total_cmp);
    let Some(&most) = seconds.last() else { return "<p>Nothing was answered.</p>".to_owned() };
    let mut points = String::new();
    for step in 0..=STEPS {
        let share = step as f64 / STEPS as f64;
        let value = seconds[((seconds.len() - 1) as f64 * share) as usize];
        let _ok =
            write!(points, "{:.1},{:.1} ", value / most.max(1e-9) * WIDTH, HEIGHT - share * HEIGHT);
    }
    let line = format!(
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"#3d5a80\" stroke-width=\"2\"/>"
    );
    frame(&(line_at(0.5) + &line_at(0.99) + &line), &milliseconds(most), "100 %")
}

/// A dashed line at a share of the height.
fn line_at(share: f64) -> String {
    let y = HEIGHT - share * HEIGHT;
    format!(
        "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#adb5bd\" \
         stroke-dasharray=\"4 4\"/>"
    )
}

fn frame(marks: &str, right: &str, top: &str) -> String {
    format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\">{marks}<text x=\"-8\" y=\"12\" \
         text-anchor=\"end\">{top}</text><text x=\"-8\" y=\"{HEIGHT}\" text-anchor=\"end\">0</text>\
         <text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">{right}</text></svg>",
        HEIGHT + 18.0
    )
}

/// What a server said never becomes markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Failure;
    use crate::report::Slo;

    #[test]
    fn what_a_server_says_never_becomes_markup() {
        let failure = Some(Failure::Refused("500: <script>alert(1)</script>".into()));
        let answers = [Answer { failure, ..Answer::default() }];
        let report = Report::of(&answers, Slo { ttft_s: 1.0, tpot_s: 1.0 });
        let page = html(&report, &answers);
        assert!(page.contains("1 failed: 500: &lt;script&gt;") && !page.contains("<script"));
    }
}
