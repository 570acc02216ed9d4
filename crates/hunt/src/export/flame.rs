//! A flame graph as SVG, outermost frame at the bottom, widths in bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use plumb_trace::FrameKind;

use super::html::escape;
use super::{label, weight};
use crate::report::Report;

#[derive(Default)]
struct Node {
    bytes: u64,
    python: bool,
    callees: BTreeMap<String, Self>,
}

const WIDTH: f64 = 1160.0;
const ROW: f64 = 18.0;
/// Narrower boxes are not drawn, in pixels.
const NARROWEST: f64 = 0.5;

/// The culprits' stacks as an SVG element; empty where there are none.
pub fn svg(report: &Report) -> String {
    let mut root = Node::default();
    for c in &report.culprits {
        let mut at = &mut root;
        at.bytes += weight(c);
        for f in c.frames.iter().rev() {
            at = at.callees.entry(label(f)).or_default();
            at.bytes += weight(c);
            at.python = f.kind == FrameKind::Python;
        }
    }
    if root.bytes == 0 {
        return String::new();
    }
    let height = depth(&root) as f64 * ROW;
    let mut boxes = String::new();
    draw(&root, 0.0, height, WIDTH / root.bytes as f64, &mut boxes);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"100%\" font-family=\"monospace\" \
         font-size=\"11\">{boxes}</svg>"
    )
}

fn depth(node: &Node) -> usize {
    node.callees.values().map(|c| 1 + depth(c)).max().unwrap_or(0)
}

/// Draws a node's callees above its own row, whose top is at `top`.
fn draw(node: &Node, mut left: f64, top: f64, scale: f64, out: &mut String) {
    for (name, callee) in &node.callees {
        let width = callee.bytes as f64 * scale;
        if width >= NARROWEST {
            let y = top - ROW;
            let fill = if callee.python { "#e8c547" } else { "#e07a5f" };
            let shown: String = name.chars().take((width / 7.0) as usize).collect();
            // Writing to a string does not fail.
            let _ok = write!(
                out,
                "<g><title>{} ({} bytes)</title><rect x=\"{left:.1}\" y=\"{y:.1}\" \
                 width=\"{width:.1}\" height=\"{:.1}\" fill=\"{fill}\" stroke=\"#fff\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
                escape(name),
                callee.bytes,
                ROW - 1.0,
                left + 3.0,
                y + 13.0,
                escape(&shown),
            );
            draw(callee, left, y, scale, out);
        }
        left += width;
    }
}
