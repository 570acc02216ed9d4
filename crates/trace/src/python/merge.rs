//! Native and Python frames as one stack.

use super::PythonFrame;
use crate::frames::{Frame, FrameKind};

/// Replaces each of the interpreter's evaluation loops by the Python frames that it ran. Both lists
/// are innermost first. Python frames without a loop to belong to, as where the native stack was cut
/// short, come last; where no loop has a name, as in a stripped interpreter whose loop is many functions
/// (3.14), they come before what began to evaluate.
pub fn merge(native: Vec<Frame>, python: &[PythonFrame]) -> Vec<Frame> {
    let begins = |frame: &Frame| frame.function.as_deref() == Some("PyEval_EvalCode");
    let unnamed = !native.iter().any(is_loop);
    let begin = native.iter().position(begins).filter(|_| unnamed);
    let mut left = python.iter();
    let mut out = Vec::with_capacity(native.len() + python.len());
    for (i, frame) in native.into_iter().enumerate() {
        if begin == Some(i) {
            out.extend(left.by_ref().map(|p| named(p, frame.module.clone())));
        }
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
        build_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(native: &str, python: &str) -> String {
        let frame = |name: &str| Frame { function: Some(name.to_owned()), ..Frame::unknown() };
        let python = python.split_whitespace().map(|name| PythonFrame {
            function: name.trim_end_matches('|').to_owned(),
            file: "f.py".to_owned(),
            line: None,
            entry: name.ends_with('|'),
        });
        let native = native.split_whitespace().map(frame).collect();
        let all = merge(native, &python.collect::<Vec<_>>());
        all.into_iter().filter_map(|f| f.function).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn python_stands_where_it_ran() {
        let (loop_, begin) = ("_PyEval_EvalFrameDefault", "PyEval_EvalCode");
        let named = merged(&format!("mmap {loop_} call {loop_} {begin} main"), "a b| c d|");
        assert_eq!(named, format!("mmap a b call c d {begin} main"));
        assert_eq!(
            merged(&format!("mmap x {begin} main"), "a b|"),
            format!("mmap x a b {begin} main")
        );
        assert_eq!(merged("mmap x", "a b|"), "mmap x a b");
    }
}
