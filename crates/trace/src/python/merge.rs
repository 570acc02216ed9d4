//! Native and Python frames as one stack.

use super::PythonFrame;
use crate::frames::{Frame, FrameKind};

/// Replaces each of the interpreter's evaluation loops by the Python frames that it ran. Both lists
/// are innermost first. Python frames without a loop to belong to, as where the native stack was cut
/// short, come last.
pub fn merge(native: Vec<Frame>, python: &[PythonFrame]) -> Vec<Frame> {
    let mut left = python.iter();
    let mut out = Vec::with_capacity(native.len() + python.len());
    for frame in native {
        if !is_loop(&frame) || left.len() == 0 {
            out.push(frame);
            continue;
        }
        for p in left.by_ref() {
            out.push(named(p, frame.module.clone()));
            if p.entry {
                break;
            }
        }
    }
    out.extend(left.map(|p| named(p, None)));
    out
}

fn is_loop(frame: &Frame) -> bool {
    frame.function.as_deref().is_some_and(|name| name.starts_with("_PyEval_EvalFrameDefault"))
}

fn named(p: &PythonFrame, module: Option<String>) -> Frame {
    Frame {
        kind: FrameKind::Python,
        function: Some(p.function.clone()),
        module,
        file: Some(p.file.clone()),
        line: p.line,
        address: None,
    }
}
