//! The processed format of the Firefox Profiler (github.com/firefox-devtools/profiler,
//! docs-developer/processed-profile-format.md): one sample a culprit, weighed in bytes.

use std::collections::HashMap;

use plumb_trace::FrameKind;
use serde_json::{Value, json};

use super::{label, weight};
use crate::report::Report;

/// The version of the processed format that is written.
const VERSION: u32 = 47;

#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    string_ids: HashMap<String, usize>,
    /// Function: name, file, category.
    functions: Vec<(usize, Option<usize>, usize)>,
    function_ids: HashMap<(usize, Option<usize>), usize>,
    /// Frame: function, line.
    frames: Vec<(usize, Option<u32>)>,
    frame_ids: HashMap<(usize, Option<u32>), usize>,
    /// Stack: frame, caller.
    stacks: Vec<(usize, Option<usize>)>,
    stack_ids: HashMap<(usize, Option<usize>), usize>,
}

fn id<K: std::hash::Hash + Eq + Clone>(ids: &mut HashMap<K, usize>, key: &K) -> (usize, bool) {
    let next = ids.len();
    let id = *ids.entry(key.clone()).or_insert(next);
    (id, id == next)
}

impl Tables {
    fn string(&mut self, s: &str) -> usize {
        let (i, new) = id(&mut self.string_ids, &s.to_owned());
        if new {
            self.strings.push(s.to_owned());
        }
        i
    }

    fn push(&mut self, frame: &plumb_trace::Frame, caller: Option<usize>) -> usize {
        let name = self.string(&label(frame));
        let file = frame.file.as_deref().or(frame.module.as_deref()).map(|f| self.string(f));
        let (function, new) = id(&mut self.function_ids, &(name, file));
        if new {
            let category = usize::from(frame.kind == FrameKind::Python);
            self.functions.push((name, file, category));
        }
        let (at, new) = id(&mut self.frame_ids, &(function, frame.line));
        if new {
            self.frames.push((function, frame.line));
        }
        let (stack, new) = id(&mut self.stack_ids, &(at, caller));
        if new {
            self.stacks.push((at, caller));
        }
        stack
    }

    fn category(&self, stack: &(usize, Option<usize>)) -> usize {
        self.functions[self.frames[stack.0].0].2
    }
}

/// The report as a profile that profiler.firefox.com opens.
pub fn firefox(report: &Report) -> Value {
    let mut t = Tables::default();
    let stacks: Vec<Option<usize>> = report
        .culprits
        .iter()
        .map(|c| c.frames.iter().rev().fold(None, |caller, f| Some(t.push(f, caller))))
        .collect();
    let n = stacks.len();
    let weights: Vec<u64> = report.culprits.iter().map(weight).collect();
    let times: Vec<usize> = (0..n).collect();
    let nulls = |n: usize| vec![Value::Null; n];
    let (frames, functions) = (t.frames.len(), t.functions.len());
    let categories: Vec<usize> = t.stacks.iter().map(|s| t.category(s)).collect();
    json!({
        "meta": {
            "interval": 1, "startTime": 0, "processType": 0, "product": "plumb hunt",
            "stackwalk": 1, "version": 27, "preprocessedProfileVersion": VERSION,
            "markerSchema": [], "symbolicated": true,
            "categories": [
                {"name": "Native", "color": "blue", "subcategories": ["Other"]},
                {"name": "Python", "color": "yellow", "subcategories": ["Other"]},
            ],
        },
        "libs": [],
        "threads": [{
            "name": "outstanding bytes", "processType": "default", "isMainThread": true,
            "processStartupTime": 0, "processShutdownTime": null, "registerTime": 0,
            "unregisterTime": null, "pausedRanges": [],
            "pid": report.verdict.pid.to_string(), "tid": 0,
            "samples": {
                "stack": stacks, "time": times, "weight": weights, "weightType": "bytes",
                "length": n,
            },
            "stackTable": {
                "frame": t.stacks.iter().map(|s| s.0).collect::<Vec<_>>(),
                "prefix": t.stacks.iter().map(|s| s.1).collect::<Vec<_>>(),
                "category": categories, "subcategory": vec![0; t.stacks.len()],
                "length": t.stacks.len(),
            },
            "frameTable": {
                "address": vec![-1; frames], "inlineDepth": vec![0; frames],
                "category": t.frames.iter().map(|f| t.functions[f.0].2).collect::<Vec<_>>(),
                "subcategory": vec![0; frames],
                "func": t.frames.iter().map(|f| f.0).collect::<Vec<_>>(),
                "line": t.frames.iter().map(|f| f.1).collect::<Vec<_>>(),
                "nativeSymbol": nulls(frames), "innerWindowID": nulls(frames),
                "implementation": nulls(frames), "column": nulls(frames), "length": frames,
            },
            "funcTable": {
                "name": t.functions.iter().map(|f| f.0).collect::<Vec<_>>(),
                "fileName": t.functions.iter().map(|f| f.1).collect::<Vec<_>>(),
                "isJS": vec![false; functions], "relevantForJS": vec![false; functions],
                "resource": vec![-1; functions], "lineNumber": nulls(functions),
                "columnNumber": nulls(functions), "length": functions,
            },
            "resourceTable": {"lib": [], "name": [], "host": [], "type": [], "length": 0},
            "nativeSymbols": {"libIndex": [], "address": [], "name": [], "functionSize": [], "length": 0},
            "markers": {"data": [], "name": [], "startTime": [], "endTime": [], "phase": [], "category": [], "length": 0},
            "stringArray": t.strings,
        }],
        "pages": [], "counters": [], "profilerOverhead": [],
    })
}
